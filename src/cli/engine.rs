//! Options about what runs the guest's instructions, and `mimic engines`.

use clap::{Args, ValueEnum};
use mimic_jit::options::{JitOptions, SWITCHES};

use super::{Failure, print, values};
use crate::engine::EngineError;
use crate::engine::kvm::probe::{self, KvmKind};
use crate::loader::Isa;
use crate::machine::spec::{EngineKind, EngineSpec, SwitchAt};
use crate::terminal::tty;

/// Engines, by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Engine {
    /// The interpreter
    Interp,
    /// The translator: guest code becomes host code
    Jit,
    /// KVM: the host's processor executes the code of an x86-64 guest itself
    Kvm,
}

/// What `--engine` takes: an engine, or the best that there is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EngineChoice {
    /// The interpreter
    Interp,
    /// The translator: guest code becomes host code
    Jit,
    /// KVM: the host's processor executes the code of an x86-64 guest itself
    Kvm,
    /// KVM for x86-64 where the host's is a real one; otherwise the default
    Auto,
}

impl Engine {
    pub(super) fn kind(self) -> EngineKind {
        match self {
            Engine::Interp => EngineKind::Interp,
            Engine::Jit => EngineKind::Jit,
            Engine::Kvm => EngineKind::Kvm,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub(super) struct EngineArgs {
    /// What runs the guest's instructions; `mimic engines` tells more [default: jit for RISC-V, interp for x86]
    #[arg(long, value_enum)]
    engine: Option<EngineChoice>,
    /// Switch parts of the translator off (-NAME) or on (NAME); `mimic engines` lists them
    #[arg(long, value_name = "LIST", value_parser = jit_list, allow_hyphen_values = true)]
    jit_opt: Vec<String>,
    /// Memory for translated code, of each hart: 512K to 1G [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = cache_size)]
    jit_cache: Option<usize>,
    /// Change the engine after so many instructions of all harts, like insns=500M,jit, or again and again,
    /// like every=1M; may be given several times. On KVM a nanosecond counts as an instruction
    #[arg(long, value_name = "insns=N,ENGINE|every=N", value_parser = switch_at)]
    switch_at: Vec<SwitchAt>,
    /// Name translated code in /tmp/perf-PID.map, for perf report
    #[arg(long)]
    perf_map: bool,
}

impl EngineArgs {
    /// The arguments about the translator, as they were given.
    pub(super) fn translator_words(&self) -> String {
        let mut words = String::new();
        for list in &self.jit_opt {
            words.push_str(&format!(" --jit-opt={list}"));
        }
        if let Some(bytes) = self.jit_cache {
            words.push_str(&format!(" --jit-cache {bytes}"));
        }
        words
    }

    /// The engine at the start. Only a KVM that is of hardware is chosen by itself, and where instructions need not be
    /// counted.
    fn kind(&self, isa: Isa, counted: bool) -> EngineKind {
        match self.engine {
            None => EngineKind::default_for(isa),
            Some(EngineChoice::Interp) => EngineKind::Interp,
            Some(EngineChoice::Jit) => EngineKind::Jit,
            Some(EngineChoice::Kvm) => EngineKind::Kvm,
            Some(EngineChoice::Auto) if isa == Isa::X86_64 && !counted => match probe::kind() {
                Ok(KvmKind::Hardware) => EngineKind::Kvm,
                _ => EngineKind::default_for(isa),
            },
            Some(EngineChoice::Auto) => EngineKind::default_for(isa),
        }
    }

    /// Checks the engines against what else is asked for.
    ///
    /// # Errors
    /// KVM cannot do it.
    pub(super) fn check(
        &self,
        isa: Isa,
        deterministic: bool,
        max_insns: bool,
    ) -> Result<(), Failure> {
        let counted = deterministic || max_insns;
        if !self.spec(isa, counted).uses(EngineKind::Kvm, isa) {
            return Ok(());
        }
        if isa != Isa::X86_64 {
            return Err(Failure::usage(EngineError::KvmRiscv));
        }
        if deterministic {
            return Err(Failure::usage(
                "a --deterministic machine needs engines that count instructions, and KVM does not: leave one of the \
                 two away",
            ));
        }
        if max_insns {
            return Err(Failure::usage(
                "--max-insns needs engines that count instructions, and KVM does not: give --timeout",
            ));
        }
        match probe::kind().map_err(Failure::host)? {
            KvmKind::Hardware => {}
            KvmKind::Software => tty::say(
                "mimic: warning: this host's KVM is software: slow but for 64-bit user code, and not exact \
                 (`mimic doctor` says where)",
            ),
        }
        Ok(())
    }

    /// The specification of the engines of harts of this instruction set. `counted`: instructions must be counted.
    pub(super) fn spec(&self, isa: Isa, counted: bool) -> EngineSpec {
        let mut jit = JitOptions { perf_map: self.perf_map, ..JitOptions::default() };
        for list in &self.jit_opt {
            if let Err(error) = jit.apply(list) {
                unreachable!("checked when the command line was read: {error}");
            }
        }
        if let Some(bytes) = self.jit_cache {
            jit.cache_bytes = bytes;
        }
        EngineSpec { kind: self.kind(isa, counted), jit, switches: self.switch_at.clone() }
    }
}

/// A list that [`JitOptions::apply`] takes.
fn jit_list(text: &str) -> Result<String, String> {
    JitOptions::default().apply(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn cache_size(text: &str) -> Result<usize, String> {
    let bytes = values::size(text)?;
    if !JitOptions::is_cache_size(bytes) {
        return Err(format!("`{text}` is too little or too much; give 512K to 1G"));
    }
    Ok(bytes as usize)
}

/// `insns=N,ENGINE` or `every=N`.
fn switch_at(text: &str) -> Result<SwitchAt, String> {
    let wrong =
        || format!("`{text}` is no moment for a change; give one like insns=500M,jit or every=1M");
    if let Some(count) = text.strip_prefix("every=") {
        return Ok(SwitchAt::Every(values::count(count)?));
    }
    let (count, engine) =
        text.strip_prefix("insns=").and_then(|rest| rest.split_once(',')).ok_or_else(wrong)?;
    let engine = Engine::from_str(engine, false).map_err(|_| {
        format!("`{engine}` in `{text}` is no engine; `mimic engines` lists what there is")
    })?;
    Ok(SwitchAt::Insns(values::count(count)?, engine.kind()))
}

/// `mimic engines`.
pub(super) fn execute() -> Result<u8, Failure> {
    let mut text = String::from("Engines (--engine NAME):");
    for engine in Engine::value_variants() {
        let kind = engine.kind();
        let default = [Isa::Riscv64, Isa::X86_64]
            .into_iter()
            .filter(|isa| EngineKind::default_for(*isa) == kind)
            .map(|isa| format!(" (the default for {})", isa.name()))
            .collect::<String>();
        text.push_str(&format!("\n  {:<12} {}{default}", kind.name(), kind.title()));
    }
    text.push_str("\nParts of the translator (--jit-opt -NAME,NAME,...; `-all` is all of them):");
    for switch in SWITCHES {
        text.push_str(&format!("\n  {:<12} {}", switch.name, switch.about));
    }
    let JitOptions { threshold, samples, cache_bytes, .. } = JitOptions::default();
    text.push_str(&format!(
        "\n  {:<12} how often a block is interpreted before it is translated ({threshold})\
         \n  {:<12} how often a clock finds code executing before it becomes a region ({samples})",
        "threshold=N", "samples=N"
    ));
    text.push_str(&format!(
        "\nMemory for translated code (--jit-cache SIZE): {} for each hart",
        values::mebibytes(cache_bytes as u64)
    ));
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_change() {
        assert_eq!(switch_at("insns=5M,jit"), Ok(SwitchAt::Insns(5_000_000, EngineKind::Jit)));
        assert_eq!(switch_at("every=1k"), Ok(SwitchAt::Every(1000)));
        for wrong in ["", "5M", "insns=5M", "insns=5M,warp", "insns=0,jit", "every=0", "every="] {
            assert!(switch_at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_of_the_cache() {
        assert_eq!(cache_size("1M"), Ok(1 << 20));
        assert!(cache_size("256K").unwrap_err().contains("512K"));
        assert!(cache_size("2G").is_err());
    }
}
