//! `mimic doctor`: what this host offers, and what is missing for which command.

use std::io::IsTerminal;

use mimic_jit::memory::{CodeMemory, MIN_BYTES};
use mimic_jit::x64::HostFeatures;

use super::{Failure, print};
use crate::boot::{Cache, apt};
use crate::engine::kvm::probe::{self, Findings, KvmKind};

pub(super) fn execute() -> Result<u8, Failure> {
    let rows = [
        ("host", host()),
        ("cores", cores()),
        ("memory", memory()),
        ("CPU features", translator()),
        ("code memory", executable_memory()),
        ("/dev/kvm", kvm()),
        ("fetching guests", fetching()),
        ("cache", cache()),
        ("terminal", terminal()),
    ];
    // Further lines of a value are below its first.
    let below = format!("\n{:17}", "");
    let row =
        |(name, value): &(&str, String)| format!("{name:<16} {}", value.replace('\n', &below));
    let text: Vec<String> = rows.iter().map(row).collect();
    print(&text.join("\n"))
}

fn host() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {} {}, Linux {}",
        name.map_or("unknown system", |name| name.trim_matches('"')),
        std::env::consts::ARCH,
        std::env::consts::OS,
        kernel.trim()
    )
}

fn cores() -> String {
    std::thread::available_parallelism().map_or_else(|error| error.to_string(), |n| n.to_string())
}

fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    match (field("MemTotal"), field("MemAvailable")) {
        (Some(total), Some(available)) => {
            format!("{} MiB, {} MiB available", total >> 10, available >> 10)
        }
        _ => "unknown".into(),
    }
}

/// What the translator makes use of.
fn translator() -> String {
    let features = HostFeatures::detect().by_name();
    let names = |there: bool| -> Vec<&str> {
        features.iter().filter(|(_, found)| *found == there).map(|(name, _)| *name).collect()
    };
    let missing = match names(false) {
        missing if missing.is_empty() => String::new(),
        missing => format!(" (missing, which costs speed: {})", missing.join(" ")),
    };
    format!("{}{missing}", names(true).join(" "))
}

/// Whether the host lets the translator write code.
fn executable_memory() -> String {
    match CodeMemory::new(MIN_BYTES) {
        Ok(_) => "granted, so --engine jit runs".into(),
        Err(error) => format!("refused ({error}): only --engine interp runs"),
    }
}

/// What kind of KVM there is, and what virtual machines of a few instructions find.
fn kvm() -> String {
    let found = match probe::probe() {
        Ok(found) => found,
        Err(error) => return error.to_string(),
    };
    let Findings { kind, loop_time, syscall, cmpxchg16b, legacy_paging, cpuid, tsc } = found;
    let mut text = match kind {
        KvmKind::Hardware => "the processor's virtualisation: --engine kvm runs x86-64 guests, --engine auto takes it",
        KvmKind::Software => {
            "software: --engine kvm runs x86-64 guests, slowly but for 64-bit user code;\n--engine auto does not take it"
        }
    }
    .to_owned();
    text.push_str(&format!(
        "\n20 000 turns of a loop in real mode: {:.2} ms",
        loop_time.as_secs_f64() * 1e3
    ));
    let rows = [
        ("SYSCALL", syscall, "works", "broken"),
        ("CMPXCHG16B in the supervisor", cmpxchg16b, "works", "left to the interpreter"),
        ("paging outside 64-bit mode", legacy_paging, "works", "refused"),
        ("CPUID", cpuid, "as told", "the host's shows through"),
        ("user code's RDTSC", tsc, "the guest's", "the host's"),
    ];
    for (what, good, yes, no) in rows {
        text.push_str(&format!("\n{what}: {}", if good { yes } else { no }));
    }
    text
}

fn fetching() -> String {
    let missing: Vec<&str> = ["apt-get", "dpkg-deb", "tar"]
        .into_iter()
        .filter(|program| !apt::installed(program))
        .collect();
    if !missing.is_empty() {
        return format!(
            "{} missing: give files by hand with `mimic boot NAME --from DIR`",
            missing.join(", ")
        );
    }
    match apt::keyring() {
        Some(keyring) => format!("apt-get and dpkg-deb are there, keys in {keyring}"),
        None => "Debian's archive keys are missing (package debian-archive-keyring)".into(),
    }
}

fn cache() -> String {
    match Cache::of_user() {
        Ok(cache) => {
            let ready: Vec<&str> = crate::boot::GUESTS
                .iter()
                .filter(|guest| !guest.embedded() && guest.ready(&cache))
                .map(|guest| guest.name)
                .collect();
            let ready =
                if ready.is_empty() { "no guests yet".to_owned() } else { ready.join(", ") };
            format!("{}: {ready}", cache.root().display())
        }
        Err(error) => error.to_string(),
    }
}

fn terminal() -> String {
    let kind = |is: bool| if is { "terminal" } else { "no terminal" };
    let size = crossterm::terminal::size().map(|(w, h)| format!(", {w}x{h}")).unwrap_or_default();
    format!(
        "stdin {}, stdout {}, stderr {}, TERM={}{size}",
        kind(std::io::stdin().is_terminal()),
        kind(std::io::stdout().is_terminal()),
        kind(std::io::stderr().is_terminal()),
        std::env::var("TERM").unwrap_or_default()
    )
}
