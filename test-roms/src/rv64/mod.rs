//! The manifest of the RV64 guests.

mod a;
mod i;
mod m;
mod operands;

use crate::Oracle::{Qemu, Spike};
use crate::suite::Suite;
use crate::{Expected, Kind, Oracle, Rom};

/// Both oracles.
const BOTH: &[Oracle] = &[Spike, Qemu];

/// A conformance ROM for one hart.
const fn checks(
    name: &'static str,
    title: &'static str,
    insns_estimate: u64,
    verified: &'static [Oracle],
    define: fn(&mut Suite),
) -> Rom {
    let (kind, expected) = (Kind::Conformance, Expected::Pass);
    Rom { name, title, kind, harts: 1, expected, insns_estimate, verified, define }
}

/// All RV64 ROMs.
#[rustfmt::skip] // one row per ROM
pub(crate) static ROMS: &[Rom] = &[
    checks("rv64/i", "RV64I: every instruction, edge operands, misaligned accesses", 800_000, BOTH, i::define),
    checks("rv64/m", "M: multiplication and division", 300_000, BOTH, m::define),
    checks("rv64/a", "A: AMOs, LR/SC", 1_500_000, BOTH, a::define),
    checks("rv64/a-misaligned", "A: misaligned atomics trap", 10_000, &[Spike], a::define_misaligned),
];
