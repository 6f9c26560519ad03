//! What a module is, found from its bytes alone, before anything of it is compiled.
//!
//! The whole of it is validated, nested modules and all functions included; nothing else is ever given to
//! the engine. What is found is a function of the bytes: the same on every server of one version.

use state::plugins::{Exports, Point};
use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentExternalKind, ComponentTypeRef, Encoding,
    FuncToValidate, FuncValidatorAllocations, FunctionBody, Instance, Parser, Payload,
    ValidPayload, Validator, ValidatorResources,
};

use crate::engine::{
    CORE_INSTANCES_MAX, FEATURES, FRAME_BYTES_MAX, FUNCTION_BYTES_MAX, FUNCTIONS_MAX, GLOBALS_MAX,
    MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX,
};
use crate::error::Refused;

/// The package, as imports and exports name it.
const PACKAGE: &str = "vivarium:plugin/";
const VERSION: &str = "@0.1.0";

/// What may be imported. `types` has no functions.
const IMPORTS: [&str; 5] = ["types", "tree", "store", "context", "log"];

/// The points, as they are exported.
const POINTS: [(&str, Point); 5] = [
    ("authorizer", Point::Authorizer),
    ("guard", Point::Guard),
    ("observer", Point::Observer),
    ("trigger", Point::Trigger),
    ("view", Point::View),
];

/// What a module exports that checks settings; optional, and no point.
pub(crate) const SETUP: &str = "vivarium:plugin/setup@0.1.0";

/// The custom section in which a module speaks of itself.
const SECTION: &str = "vivarium:plugin";

/// What this module is.
///
/// # Errors
/// [`Refused`], the first reason found.
pub fn inspect(bytes: &[u8], bytes_max: usize) -> Result<Exports, Refused> {
    if bytes.len() > bytes_max {
        return Err(Refused::TooBig { bytes: bytes.len(), max: bytes_max });
    }
    let mut look = Look::default();
    let mut validator = Validator::new_with_features(FEATURES);
    let mut allocations = FuncValidatorAllocations::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        // First whether it is valid, so that what is looked at can be believed.
        if let ValidPayload::Func(function, body) = validator.payload(&payload)? {
            allocations = check_function(function, &body, allocations)?;
        }
        look.at(&payload)?;
    }
    look.exports.points.sort_unstable();
    if look.exports.points.is_empty() {
        return Err(Refused::NoPoint);
    }
    Ok(look.exports)
}

/// What was seen so far.
#[derive(Default)]
struct Look {
    exports: Exports,
    /// Where it is: the component itself, and what is nested in it.
    inside: Vec<Encoding>,
    /// The core modules of the component, in order.
    modules: Vec<Core>,
    /// What its core instances have in sum.
    sum: Core,
    instances: usize,
}

/// What a core module defines.
#[derive(Default, Clone, Copy)]
struct Core {
    memories: usize,
    tables: usize,
}

impl Look {
    fn at(&mut self, payload: &Payload<'_>) -> Result<(), Refused> {
        let depth = self.inside.len();
        match payload {
            Payload::Version { encoding, .. } => match (depth, encoding) {
                (0, Encoding::Module) => return Err(Refused::NotComponent),
                (_, Encoding::Component) => self.inside.push(*encoding),
                (1, Encoding::Module) => {
                    self.inside.push(*encoding);
                    self.modules.push(Core::default());
                }
                (_, Encoding::Module) => {
                    return Err(Refused::Shape("has core modules in a nested component"));
                }
            },
            Payload::End(_) => {
                self.inside.pop();
            }
            Payload::CustomSection(section) if section.name() == SECTION => {
                self.words(section.data())?;
            }

            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section.clone() {
                    let import = import?;
                    let is_known = matches!(import.ty, ComponentTypeRef::Instance(_))
                        && ours(import.name.name).is_some_and(|name| IMPORTS.contains(&name));
                    if !is_known {
                        return Err(Refused::Import(import.name.name.to_owned()));
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section.clone() {
                    let export = export?;
                    let name = ours(export.name.name);
                    let point = POINTS.iter().find(|(point, _)| Some(*point) == name);
                    if let (Some((_, point)), ComponentExternalKind::Instance) =
                        (point, export.kind)
                    {
                        self.exports.points.push(*point);
                    }
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        self.instantiate(module_index as usize)?;
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    check_canonical(&function?)?;
                }
            }
            Payload::ComponentAliasSection(section) if depth == 1 => {
                for alias in section.clone() {
                    check_alias(&alias?)?;
                }
            }

            Payload::StartSection { .. } => return Err(Refused::Start),
            Payload::FunctionSection(section) => {
                within("functions of a core module", section.count(), FUNCTIONS_MAX)?;
            }
            Payload::GlobalSection(section) => {
                within("globals of a core module", section.count(), GLOBALS_MAX)?;
            }
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let pages = memory?.initial;
                    within("pages of memory", pages, MEMORY_BYTES_MAX >> 16)?;
                }
                self.core().memories += section.count() as usize;
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    let elements = table?.ty.initial;
                    within("elements of a table", elements, TABLE_ELEMENTS_MAX as u64)?;
                }
                self.core().tables += section.count() as usize;
            }
            _ => {}
        }
        Ok(())
    }

    /// The core module that is being looked at.
    fn core(&mut self) -> &mut Core {
        self.modules.last_mut().expect("its sections come after its beginning")
    }

    fn instantiate(&mut self, module: usize) -> Result<(), Refused> {
        // A module that is not defined here would have to be imported.
        let core = self.modules.get(module).ok_or(Refused::Shape("has modules of others"))?;
        self.instances += 1;
        self.sum.memories += core.memories;
        self.sum.tables += core.tables;
        within("core instances", self.instances as u64, CORE_INSTANCES_MAX as u64)?;
        within("memories", self.sum.memories as u64, 1u64)?;
        within("tables", self.sum.tables as u64, TABLES_MAX as u64)
    }

    /// What it says of itself.
    fn words(&mut self, data: &[u8]) -> Result<(), Refused> {
        let words = String::from_utf8_lossy(data);
        for word in words.split_ascii_whitespace() {
            match word {
                "stateless" => self.exports.is_stateless = true,
                other => return Err(Refused::Word(other.to_owned())),
            }
        }
        Ok(())
    }
}

/// The name of an interface of our package, of the version that there is.
fn ours(name: &str) -> Option<&str> {
    name.strip_prefix(PACKAGE)?.strip_suffix(VERSION)
}

fn within<T: Into<u64>>(what: &'static str, found: T, max: T) -> Result<(), Refused> {
    let (found, max) = (found.into(), max.into());
    if found > max { Err(Refused::TooMany { what, found, max }) } else { Ok(()) }
}

/// Functions go in and out by value, in UTF-8: what else there is depends on more than the guest.
fn check_canonical(function: &CanonicalFunction) -> Result<(), Refused> {
    let options = match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options
        }
        _ => return Err(Refused::Shape("uses resources, or what is asynchronous")),
    };
    let is_other = |option: &CanonicalOption| {
        matches!(option, CanonicalOption::UTF16 | CanonicalOption::CompactUTF16)
    };
    if options.iter().any(is_other) {
        return Err(Refused::Shape("has strings that are not UTF-8"));
    }
    Ok(())
}

/// Core modules come from this file, not out of an instance.
fn check_alias(alias: &wasmparser::ComponentAlias<'_>) -> Result<(), Refused> {
    use wasmparser::{ComponentAlias, ComponentOuterAliasKind};
    match alias {
        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. }
        | ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => {
            Err(Refused::Shape("has modules of others"))
        }
        _ => Ok(()),
    }
}

/// Validates a function and measures its frame.
fn check_function(
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    allocations: FuncValidatorAllocations,
) -> Result<FuncValidatorAllocations, Refused> {
    let (index, bytes) = (function.index, body.range().len());
    within("bytes of code in a function", bytes as u64, FUNCTION_BYTES_MAX as u64)?;
    let mut validator = function.into_validator(allocations);
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader)?;
    let mut operands = 0;
    while !reader.eof() {
        let offset = reader.original_position();
        reader.visit_operator(&mut validator.visitor(offset))??;
        operands = operands.max(validator.operand_stack_height());
    }
    let offset = reader.original_position();
    reader.finish_expression(&validator.visitor(offset))?;
    // Parameters are among the locals.
    let bytes = (validator.len_locals() as usize + operands as usize) * 16;
    if bytes > FRAME_BYTES_MAX {
        return Err(Refused::Frame { function: index, bytes, max: FRAME_BYTES_MAX });
    }
    Ok(validator.into_allocations())
}

impl From<wasmparser::BinaryReaderError> for Refused {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid { offset: error.offset(), why: error.message().to_owned() }
    }
}
