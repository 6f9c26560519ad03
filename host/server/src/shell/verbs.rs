//! The shell's verbs: zkCli's names, flags and order of arguments, and what each is for.

/// A flag of a verb.
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// What its value is called; `None` if it has none.
    pub(super) value: Option<&'static str>,
    pub(super) about: &'static str,
}

/// A verb.
pub(super) struct Verb {
    pub(super) name: &'static str,
    /// Its arguments after the flags, as they are shown.
    pub(super) args: &'static str,
    /// How many of them there are.
    pub(super) count: std::ops::RangeInclusive<usize>,
    pub(super) flags: &'static [Flag],
    pub(super) about: &'static str,
    pub(super) example: &'static str,
}

const fn flag(name: &'static str, about: &'static str) -> Flag {
    Flag { name, value: None, about }
}

const fn valued(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { name, value: Some(value), about }
}

const STAT: Flag = flag("-s", "print the znode's stat too");
const WATCH: Flag = flag("-w", "set a watch, which fires once");
const VERSION: Flag = valued("-v", "VERSION", "only if the znode has this version");

macro_rules! verbs {
    ($($name:literal, $args:literal, $count:expr, [$($flag:expr),*], $about:literal, $example:literal;)*) => {
        /// All verbs, by name.
        pub(super) static VERBS: &[Verb] = &[$(Verb {
            name: $name,
            args: $args,
            count: $count,
            flags: &[$($flag),*],
            about: $about,
            example: $example,
        }),*];
    };
}

verbs! {
    "addWatch", "PATH", 1..=1,
        [valued("-m", "MODE", "PERSISTENT: this znode and its children; PERSISTENT_RECURSIVE: all \
            below too (the default)")],
        "Sets a watch that stays until it is removed.", "addWatch -m PERSISTENT /app";
    "addauth", "SCHEME CREDENTIALS", 1..=2, [],
        "Proves to be somebody; never kept in the history.", "addauth digest alice:secret";
    "close", "", 0..=0, [], "Closes the session: its ephemerals and watches go.", "close";
    "config", "", 0..=0,
        [flag("-c", "only the version and the client addresses"), STAT, WATCH],
        "Shows the ensemble's configuration.", "config -s";
    "connect", "HOST:PORT[,...][/PATH]", 1..=1, [],
        "Closes the session and opens one elsewhere.", "connect zoo2:2181";
    "create", "PATH [DATA] [ACL]", 1..=3,
        [flag("-s", "append a number to its name"), flag("-e", "delete it with this session"),
         flag("-c", "a container: deleted some time after its last child"),
         valued("-t", "TTL", "delete it when not set for this long, in milliseconds")],
        "Makes a znode.", "create -s -e /queue/item- \"some data\" world:anyone:cdrwa";
    "delete", "PATH", 1..=1, [VERSION], "Deletes a znode without children.", "delete -v 3 /app";
    "deleteall", "PATH", 1..=1,
        [valued("-b", "BATCH", "how many are deleted in one multi, 1 to 10000 (default 1000)")],
        "Deletes a znode and all below it; what is created there meanwhile may stay.",
        "deleteall /app";
    "delquota", "PATH", 1..=1,
        [flag("-n", "only the soft limit of the count"), flag("-b", "only that of the bytes"),
         flag("-N", "only the hard limit of the count"), flag("-B", "only that of the bytes")],
        "Removes a quota, or one limit of it.", "delquota -n /app";
    "exit", "", 0..=0, [], "Leaves the shell.", "exit";
    "get", "PATH", 1..=1,
        [STAT, WATCH, flag("-b", "print the data as base64"), flag("-x", "print it as a hex dump"),
         flag("-r", "print its bytes as they are, without a line end")],
        "Shows a znode's data. Control characters and what is not UTF-8 are shown by number.",
        "get -s /app";
    "getAcl", "PATH", 1..=1, [STAT], "Shows who may do what with a znode.", "getAcl /app";
    "getAllChildrenNumber", "PATH", 1..=1, [], "Counts all znodes below one.",
        "getAllChildrenNumber /";
    "getEphemerals", "[PREFIX]", 0..=1, [], "Lists the ephemerals of this session.",
        "getEphemerals /app";
    "help", "[VERB]", 0..=1, [], "Lists the verbs, or tells of one.", "help create";
    "history", "", 0..=0, [], "Lists the last commands, with their numbers.", "history";
    "listquota", "PATH", 1..=1, [], "Shows a znode's quota and what is used of it.",
        "listquota /app";
    "ls", "PATH", 1..=1,
        [STAT, WATCH, flag("-R", "all znodes below it too, one a line")],
        "Lists a znode's children.", "ls -R /app";
    "printwatches", "[on|off]", 0..=1, [], "Whether watch events are printed.", "printwatches off";
    "quit", "", 0..=0, [], "Leaves the shell.", "quit";
    "reconfig", "", 0..=0,
        [STAT, valued("-v", "VERSION", "only if this is the configuration's version (hex)"),
         valued("-file", "FILE", "the new members, from a file"),
         valued("-members", "SERVERS", "the new members"),
         valued("-add", "SERVERS", "members to add, server.ID=HOST:PORT:PORT;PORT"),
         valued("-remove", "IDS", "members to remove, by their ids")],
        "Changes the ensemble's members.", "reconfig -remove 3";
    "redo", "NUMBER", 1..=1, [], "Runs a command of the history again.", "redo 4";
    "removewatches", "PATH", 1..=1,
        [flag("-c", "the child watch"), flag("-d", "the data watch"),
         flag("-p", "the persistent watch"), flag("-r", "the persistent recursive watch"),
         flag("-a", "all of them (the default)")],
        "Removes this session's watches on a path.", "removewatches -d /app";
    "set", "PATH DATA", 2..=2,
        [STAT, VERSION, flag("-b", "DATA is base64")],
        "Replaces a znode's data.", "set -v 3 /app \"new data\"";
    "setAcl", "PATH ACL", 2..=2,
        [STAT, VERSION, flag("-R", "all znodes below it too")],
        "Replaces a znode's ACL: SCHEME:ID:PERMISSIONS, comma-separated, with the permissions \
         c(reate) d(elete) r(ead) w(rite) a(dmin).",
        "setAcl /app world:anyone:r,auth::cdrwa";
    "setquota", "PATH", 1..=1,
        [valued("-n", "COUNT", "soft limit of the number of znodes, itself included"),
         valued("-b", "BYTES", "soft limit of the bytes of data"),
         valued("-N", "COUNT", "hard limit of the number"),
         valued("-B", "BYTES", "hard limit of the bytes")],
        "Limits what may be below a znode. Hard limits refuse writes where the cluster setting \
         enforce-quota is on; soft ones are only logged.",
        "setquota -n 1000 -B 1048576 /app";
    "stat", "PATH", 1..=1, [WATCH],
        "Shows a znode's stat; with -w a znode that is not there yet is watched for too.",
        "stat /app";
    "sync", "PATH", 1..=1, [], "Waits until the server has all that was committed before.",
        "sync /";
    "version", "", 0..=0, [], "Shows the version of this program.", "version";
    "whoami", "", 0..=0, [], "Shows who this session has proved to be.", "whoami";
}

/// The verb of this name; two old names of zkCli are taken too.
pub(super) fn find(name: &str) -> Option<&'static Verb> {
    let name = match name {
        "rmr" => "deleteall",
        "aget" => "get",
        other => other,
    };
    VERBS.iter().find(|verb| verb.name == name)
}

/// The verb that was probably meant: a slip of the finger away, or much alike.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let names = || VERBS.iter().map(|verb| (verb.name.to_lowercase(), verb.name));
    let slips = names().map(|(lower, verb)| (strsim::osa_distance(&name, &lower), verb));
    let slip = slips.min_by_key(|(slips, _)| *slips).filter(|(slips, _)| *slips == 1);
    let alike = names().map(|(lower, verb)| (strsim::jaro_winkler(&name, &lower), verb));
    let alike = alike.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8);
    slip.map(|(_, verb)| verb).or(alike.map(|(_, verb)| verb))
}

impl Verb {
    /// One line: name, flags, arguments.
    pub(super) fn usage(&self) -> String {
        let mut usage = self.name.to_owned();
        for flag in self.flags {
            let value = flag.value.map_or(String::new(), |value| format!(" {value}"));
            usage.push_str(&format!(" [{}{value}]", flag.name));
        }
        if !self.args.is_empty() {
            usage.push_str(&format!(" {}", self.args));
        }
        usage
    }

    /// All there is to say of it.
    pub(super) fn help(&self) -> String {
        let mut help = format!("{}\n\n{}\n", self.usage(), self.about);
        if !self.flags.is_empty() {
            help.push('\n');
        }
        for flag in self.flags {
            let head = format!("{} {}", flag.name, flag.value.unwrap_or_default());
            help.push_str(&format!("  {:<16}{}\n", head.trim_end(), flag.about));
        }
        help.push_str(&format!("\nFor example: {}\n", self.example));
        help
    }
}

/// One line for each verb.
pub(crate) fn overview() -> String {
    let mut text = String::new();
    for verb in VERBS {
        let first = verb.about.split(['.', ':', ';']).next().unwrap_or_default();
        text.push_str(&format!("  {:<22}{first}\n", verb.name));
    }
    text
}
