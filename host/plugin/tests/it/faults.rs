//! `FAULTS.md` lists every trap that the engine knows, and the code does what it says.

use plugin::kind_of_trap;
use state::hooks::FaultKind;
use wasmtime::Trap;

const TABLE: &str = include_str!("../../FAULTS.md");

/// What the table says of a trap.
fn listed(name: &str) -> Option<&'static str> {
    let row = TABLE.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")))?;
    row.strip_suffix(" |")
}

#[test]
fn every_trap_is_listed_and_sorted_as_listed() {
    let traps: Vec<Trap> = (0..=u8::MAX).filter_map(Trap::from_u8).collect();
    assert!(traps.len() > 40, "there are {} traps", traps.len());
    for trap in traps {
        let said = listed(&format!("{trap:?}"))
            .unwrap_or_else(|| panic!("{trap:?} is not in FAULTS.md: whose fault is it?"));
        let expected = match said.split([':', ';']).map(str::trim).collect::<Vec<_>>()[..] {
            ["plugin", "trap", ..] => Some(FaultKind::Trap),
            ["plugin", "out of fuel", ..] => Some(FaultKind::Fuel),
            ["plugin", "bad return", ..] => Some(FaultKind::BadReturn),
            ["host", ..] => None,
            _ => panic!("{trap:?}: `{said}` is no outcome"),
        };
        assert_eq!(kind_of_trap(trap), expected, "{trap:?}: {said}");
    }
}
