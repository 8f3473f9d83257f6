//! `mimic cpus`.

use mimic_cpu::riscv::model::{CpuModel, FEATURES};

use super::{Failure, print};
use crate::machine::spec::x86_models;

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
    for (name, about) in x86_models() {
        text.push_str(&format!("{name}: {about}\n"));
    }
    text.push_str("Switch a feature of a RISC-V hart with --cpu, as in --cpu rv64,svade=off.");
    print(&text)
}
