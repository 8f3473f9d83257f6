//! `mimic cpus`.

use mimic_cpu::riscv::model::{CpuModel, FEATURES};
use mimic_cpu::x86::model::text::{MODELS, switches};

use super::{Failure, print};

pub(super) fn execute() -> Result<u8, Failure> {
    let mut text = String::new();
    let model = CpuModel::default();
    for name in CpuModel::NAMES {
        text.push_str(&format!("{name}: {}\n", model.isa_string()));
        for feature in FEATURES {
            let state = if feature.is_on(model) { "on" } else { "off" };
            text.push_str(&format!("  {:<8}{state:<5}{}\n", feature.name, feature.about));
        }
    }
    for named in &MODELS {
        text.push_str(&format!("{}: {}\n", named.name, named.about));
    }
    let models = MODELS.each_ref().map(|named| (named.name, named.model()));
    text.push_str(&format!("  {:<14}", ""));
    for (name, _) in &models {
        text.push_str(&format!("{name:<11}"));
    }
    text.push('\n');
    for switch in switches() {
        text.push_str(&format!("  {:<14}", switch.name));
        for (_, model) in &models {
            let state = if switch.is_on(model) { "on" } else { "off" };
            text.push_str(&format!("{state:<11}"));
        }
        text.push_str(&format!("{}\n", switch.about.trim_end_matches('.')));
    }
    text.push_str(
        "  phys-bits=N   physical address bits: 36 to 52 [40]\n  \
         vendor=V      intel or amd: whose manual counts where they differ [intel]\n\
         Switch a feature with --cpu, as in --cpu rv64,svade=off or --cpu x86-64-v3,smap=off.",
    );
    print(&text)
}
