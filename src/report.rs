//! What the user is told when a run ends: the exit status, the last line on stderr, and JSON.
//!
//! The statuses 121 to 126 are Mimic's own; a guest's failure never looks like them.

use std::time::Duration;

use serde::Serialize;

use crate::machine::spec::{End, JitStats, KvmStats, Report, Stats};

/// The guest died.
pub const STATUS_DIED: u8 = 121;
/// The guest reported that its system failed.
pub const STATUS_PANICKED: u8 = 122;
/// A limit was reached.
pub const STATUS_LIMIT: u8 = 124;
/// The host failed.
pub const STATUS_HOST: u8 = 125;
/// The command line is wrong, or what it names.
pub const STATUS_USAGE: u8 = 126;

/// The exit status of a run. A guest that has HTIF (`tohost`) reports the number of a failed case, which
/// is named in words; others report a code, which is their exit status.
pub fn status(end: &End, htif: bool) -> u8 {
    match end {
        End::Fail(_) if htif => 1,
        End::PowerOff | End::Reset | End::Pass | End::Quit => 0,
        // An exit status has 8 bits, and a failure never becomes 0 or one of Mimic's own statuses.
        End::Fail(code) => u8::try_from(*code)
            .ok()
            .filter(|c| *c != 0 && !(STATUS_DIED..=STATUS_USAGE).contains(c))
            .unwrap_or(1),
        End::Exit(value) => debug_exit_status(*value),
        End::Died(_) | End::Halted => STATUS_DIED,
        End::Panicked => STATUS_PANICKED,
        End::InsnLimit | End::TimeLimit => STATUS_LIMIT,
        End::Host(_) => STATUS_HOST,
    }
}

/// QEMU's exit status for a value that a guest writes to isa-debug-exit.
pub fn debug_exit_status(value: u32) -> u8 {
    (value << 1) as u8 | 1
}

/// A short name of the end, for tables and JSON.
pub fn kind(end: &End) -> &'static str {
    match end {
        End::PowerOff => "poweroff",
        End::Reset => "reset",
        End::Pass => "pass",
        End::Fail(_) => "fail",
        End::Exit(_) => "exit",
        End::Panicked => "panic",
        End::Died(_) => "died",
        End::Halted => "halted",
        End::InsnLimit => "insn-limit",
        End::TimeLimit => "time-limit",
        End::Quit => "quit",
        End::Host(_) => "host-error",
    }
}

/// Why the run ended, in a sentence.
pub fn cause(end: &End) -> String {
    match end {
        End::PowerOff => "the guest powered off".into(),
        End::Reset => "the guest asked for a reset".into(),
        End::Pass => "the guest reported success".into(),
        End::Fail(code) => format!("the guest reported failure {code}"),
        End::Exit(value) => format!(
            "the guest ended with {value:#x} at isa-debug-exit, exit status {}",
            debug_exit_status(*value)
        ),
        End::Panicked => "the guest reported that its system failed".into(),
        End::Died(why) => format!("the guest died: {why}"),
        End::Halted => "the guest halted with interrupts off: nothing will wake it".into(),
        End::InsnLimit => "the instruction limit was reached (--max-insns)".into(),
        End::TimeLimit => "the time limit was reached (--timeout)".into(),
        End::Quit => "quit by the user".into(),
        End::Host(why) => why.clone(),
    }
}

/// Million instructions a second of the harts' CPU time; 0 when no time has passed.
pub fn mips(stats: &Stats) -> f64 {
    let seconds = stats.hart_time.as_secs_f64();
    if seconds > 0.0 { stats.insns as f64 / seconds / 1e6 } else { 0.0 }
}

/// Counters on one line.
pub fn summary(stats: &Stats) -> String {
    format!(
        "{} instructions, {:.1} MIPS, {:.2} s of CPU time, {:.2} s elapsed",
        grouped(stats.insns),
        mips(stats),
        stats.cpu_time.as_secs_f64(),
        stats.wall_time.as_secs_f64()
    )
}

/// All counters, as `--stats` prints them.
pub fn statistics(stats: &Stats) -> String {
    let Stats {
        insns,
        cpu_time,
        hart_time,
        wall_time,
        tlb_misses,
        blocks_decoded,
        device_accesses,
        engine_switches,
        jit,
        kvm,
    } = *stats;
    let mut rows = vec![
        ("instructions", grouped(insns)),
        ("MIPS", format!("{:.1}", mips(stats))),
        ("CPU time", format!("{:.3} s", cpu_time.as_secs_f64())),
        ("  of the harts", format!("{:.3} s", hart_time.as_secs_f64())),
        ("elapsed", format!("{:.3} s", wall_time.as_secs_f64())),
        ("TLB misses", grouped(tlb_misses)),
        ("blocks decoded", grouped(blocks_decoded)),
        ("device accesses", grouped(device_accesses)),
    ];
    if engine_switches > 0 {
        rows.push(("engine switches", grouped(engine_switches)));
    }
    if let Some(jit) = &jit {
        rows.extend(translation(jit, hart_time));
    }
    if let Some(KvmStats { entries, fallbacks, interpreted }) = kvm {
        rows.push(("entries by KVM", grouped(entries)));
        rows.push(("fallbacks of KVM", grouped(fallbacks)));
        rows.push(("  insns interpreted", grouped(interpreted)));
    }
    let lines: Vec<String> =
        rows.into_iter().map(|(name, value)| format!("  {name:<20}{value:>18}")).collect();
    lines.join("\n")
}

/// The share of the harts' CPU time that was spent in translation; 0 when no time has passed.
fn translation_share(jit: &JitStats, hart_time: Duration) -> f64 {
    let seconds = hart_time.as_secs_f64();
    if seconds > 0.0 { jit.time.as_secs_f64() / seconds } else { 0.0 }
}

/// The translators' counters.
fn translation(jit: &JitStats, hart_time: Duration) -> [(&'static str, String); 19] {
    let JitStats {
        blocks,
        host_bytes,
        held_bytes,
        insns,
        regions,
        region_insns,
        samples,
        background,
        time,
        recycled,
        links,
        exits_event,
        exits_link,
        exits_lookup,
        exits_slice,
        performed,
        interpreted,
    } = *jit;
    let exits = exits_event + exits_link + exits_lookup + exits_slice;
    [
        ("blocks translated", grouped(blocks)),
        ("  instructions", grouped(insns)),
        ("regions translated", grouped(regions)),
        ("  instructions", grouped(region_insns)),
        ("  samples", grouped(samples)),
        ("  time beside the guest", format!("{:.3} s", background.as_secs_f64())),
        ("  host bytes", grouped(host_bytes)),
        ("  bytes held", grouped(held_bytes)),
        ("  segments recycled", grouped(recycled)),
        ("  time", format!("{:.3} s", time.as_secs_f64())),
        ("  share of the harts", format!("{:.1} %", 100.0 * translation_share(jit, hart_time))),
        ("links made", grouped(links)),
        ("exits", grouped(exits)),
        ("  event or trap", grouped(exits_event)),
        ("  unlinked jump", grouped(exits_link)),
        ("  unknown address", grouped(exits_lookup)),
        ("  slice used up", grouped(exits_slice)),
        ("insns performed", grouped(performed)),
        ("blocks interpreted", grouped(interpreted)),
    ]
}

/// One summary line about accesses where nothing is.
pub fn unmapped(report: &Report) -> Option<String> {
    let (count, first) = report.unmapped?;
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    Some(format!("the guest accessed addresses where nothing is {times}, first {first:#x}"))
}

/// A state hash, as text.
pub fn hash(hash: u128) -> String {
    format!("{hash:032x}")
}

/// A run as `--report FILE` writes it.
#[derive(Serialize)]
pub struct JsonReport {
    /// [`kind`] of the end.
    pub end: &'static str,
    /// [`cause`] of the end.
    pub cause: String,
    /// The guest's failure code, when it reported one.
    pub code: Option<u64>,
    /// Mimic's exit status.
    pub status: u8,
    /// Counters.
    pub stats: JsonStats,
    /// Accesses where nothing is.
    pub unmapped_accesses: u64,
    /// The first of their addresses.
    pub first_unmapped: Option<String>,
    /// The state hash, if it was asked for.
    pub state_hash: Option<String>,
}

/// [`Stats`], in JSON's terms.
#[derive(Serialize)]
pub struct JsonStats {
    /// Instructions retired.
    pub instructions: u64,
    /// Million instructions a second of the harts' CPU time.
    pub mips: f64,
    /// Seconds of CPU time of the process.
    pub cpu_seconds: f64,
    /// Seconds of CPU time of the harts.
    pub hart_seconds: f64,
    /// Seconds elapsed.
    pub wall_seconds: f64,
    /// TLB misses.
    pub tlb_misses: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Accesses served by devices.
    pub device_accesses: u64,
    /// Changes of engine, of all harts together.
    pub engine_switches: u64,
    /// The translators', if there were any.
    pub jit: Option<JsonJit>,
    /// KVM's, if a hart ran on it.
    pub kvm: Option<JsonKvm>,
}

/// [`KvmStats`], in JSON's terms.
#[derive(Serialize)]
pub struct JsonKvm {
    /// Times that the guest was entered.
    pub entries: u64,
    /// Times that the interpreter performed what KVM cannot.
    pub fallbacks: u64,
    /// Instructions that it performed then.
    pub interpreted: u64,
}

/// [`JitStats`], in JSON's terms.
#[derive(Serialize)]
pub struct JsonJit {
    /// Blocks translated.
    pub blocks: u64,
    /// Guest instructions translated.
    pub instructions: u64,
    /// Regions translated: blocks that are executed much, together.
    pub regions: u64,
    /// Guest instructions in regions.
    pub region_instructions: u64,
    /// Samples of what is executed much.
    pub samples: u64,
    /// Seconds spent in preparing regions beside the guest.
    pub background_seconds: f64,
    /// Bytes of host code made.
    pub host_bytes: u64,
    /// Bytes of host code held.
    pub held_bytes: u64,
    /// Parts of code memory that were emptied to make room.
    pub segments_recycled: u64,
    /// Seconds spent in translation.
    pub translation_seconds: f64,
    /// ... as a part of the harts' CPU time, from 0 to 1.
    pub translation_share: f64,
    /// Jumps that were made to lead straight to their block.
    pub links: u64,
    /// Why translated code was left, and how often.
    pub exits: JsonExits,
    /// Instructions that translated code had the interpreter perform.
    pub performed: u64,
    /// Blocks that were interpreted.
    pub blocks_interpreted: u64,
}

/// Exits of translated code, by cause.
#[derive(Serialize)]
pub struct JsonExits {
    /// A trap, or something to look at.
    pub event: u64,
    /// A jump that did not lead to its block yet.
    pub link: u64,
    /// The code at an address was not known.
    pub lookup: u64,
    /// The share of instructions was used up.
    pub slice: u64,
}

impl JsonJit {
    fn new(jit: &JitStats, hart_time: Duration) -> Self {
        JsonJit {
            blocks: jit.blocks,
            instructions: jit.insns,
            regions: jit.regions,
            region_instructions: jit.region_insns,
            samples: jit.samples,
            background_seconds: jit.background.as_secs_f64(),
            host_bytes: jit.host_bytes,
            held_bytes: jit.held_bytes,
            segments_recycled: jit.recycled,
            translation_seconds: jit.time.as_secs_f64(),
            translation_share: translation_share(jit, hart_time),
            links: jit.links,
            exits: JsonExits {
                event: jit.exits_event,
                link: jit.exits_link,
                lookup: jit.exits_lookup,
                slice: jit.exits_slice,
            },
            performed: jit.performed,
            blocks_interpreted: jit.interpreted,
        }
    }
}

impl From<&Stats> for JsonStats {
    fn from(stats: &Stats) -> Self {
        let Stats {
            insns,
            cpu_time,
            hart_time,
            wall_time,
            tlb_misses,
            blocks_decoded,
            device_accesses,
            engine_switches,
            jit,
            kvm,
        } = *stats;
        JsonStats {
            instructions: insns,
            mips: mips(stats),
            cpu_seconds: cpu_time.as_secs_f64(),
            hart_seconds: hart_time.as_secs_f64(),
            wall_seconds: wall_time.as_secs_f64(),
            tlb_misses,
            blocks_decoded,
            device_accesses,
            engine_switches,
            jit: jit.map(|jit| JsonJit::new(&jit, hart_time)),
            kvm: kvm.map(|KvmStats { entries, fallbacks, interpreted }| JsonKvm {
                entries,
                fallbacks,
                interpreted,
            }),
        }
    }
}

impl JsonReport {
    /// Describes a run of a guest with or without HTIF.
    pub fn new(report: &Report, htif: bool) -> Self {
        let code = match report.end {
            End::Fail(code) => Some(code),
            End::Exit(value) => Some(value.into()),
            _ => None,
        };
        JsonReport {
            end: kind(&report.end),
            cause: cause(&report.end),
            code,
            status: status(&report.end, htif),
            stats: (&report.stats).into(),
            unmapped_accesses: report.unmapped.map_or(0, |(count, _)| count),
            first_unmapped: report.unmapped.map(|(_, first)| format!("{first:#x}")),
            state_hash: report.state_hash.map(hash),
        }
    }
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_never_status_zero_nor_one_of_ours() {
        assert_eq!(status(&End::Fail(3), false), 3);
        assert_eq!(status(&End::Fail(255), false), 255);
        for code in [0, 121, 126, 256, 0x1_0000] {
            assert_eq!(status(&End::Fail(code), false), 1, "{code}");
        }
        assert_eq!(status(&End::Fail(3), true), 1, "a case number is no status");
        assert_eq!(status(&End::PowerOff, false), 0);
        assert_eq!(status(&End::Died(String::new()), false), 121);
        assert_eq!(status(&End::Panicked, false), 122);
        assert_eq!(status(&End::InsnLimit, false), 124);
        assert_eq!(status(&End::Host(String::new()), false), 125);
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1234), "1 234");
        assert_eq!(grouped(830_000_000), "830 000 000");
    }
}
