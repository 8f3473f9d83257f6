//! What the harts of a machine offer, of either instruction set, and its form on the command line.

use std::fmt;
use std::str::FromStr;

use mimic_cpu::riscv::model::CpuModel;
use mimic_cpu::x86::model::Model;
use serde::{Deserialize, Serialize};

use crate::loader::Isa;

/// What the harts offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuSpec {
    /// RISC-V harts.
    Riscv(CpuModel),
    /// x86 processors.
    X86(Model),
}

impl Default for CpuSpec {
    fn default() -> Self {
        CpuModel::default().into()
    }
}

impl From<CpuModel> for CpuSpec {
    fn from(model: CpuModel) -> Self {
        CpuSpec::Riscv(model)
    }
}

impl CpuSpec {
    /// The model for an instruction set unless told otherwise.
    #[must_use]
    pub fn default_for(isa: Isa) -> Self {
        match isa {
            Isa::Riscv64 => CpuSpec::default(),
            Isa::X86_64 => CpuSpec::X86(Model::v3()),
        }
    }

    /// The instruction set.
    #[must_use]
    pub fn isa(&self) -> Isa {
        match self {
            CpuSpec::Riscv(_) => Isa::Riscv64,
            CpuSpec::X86(_) => Isa::X86_64,
        }
    }

    /// This model, or the default one if it is of another instruction set.
    #[must_use]
    pub fn or_default_for(&self, isa: Isa) -> Self {
        if self.isa() == isa { self.clone() } else { CpuSpec::default_for(isa) }
    }

    /// RISC-V's ISA string, or the x86 model as text.
    #[must_use]
    pub fn isa_string(&self) -> String {
        match self {
            CpuSpec::Riscv(model) => model.isa_string(),
            CpuSpec::X86(model) => model.to_string(),
        }
    }

    /// Whether a machine of so many processors has such ones: not every model that a file may describe is one of ours.
    pub(super) fn is_legal(&self, cpus: u32) -> bool {
        match self {
            CpuSpec::Riscv(_) => true,
            CpuSpec::X86(model) => {
                // What cannot be said of a model on the command line is none; on KVM the time-stamp counter runs as the
                // host's does.
                model.tsc_hz != 0
                    && model.to_string().parse().is_ok_and(|mut named: Model| {
                        (named.cpus, named.tsc_hz) = (cpus, model.tsc_hz);
                        named == *model
                    })
            }
        }
    }
}

impl fmt::Display for CpuSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CpuSpec::Riscv(model) => model.fmt(f),
            CpuSpec::X86(model) => model.fmt(f),
        }
    }
}

impl FromStr for CpuSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("x86") {
            return match text.parse() {
                Ok(model) => Ok(CpuSpec::X86(model)),
                Err(error) => Err(<Model as FromStr>::Err::to_string(&error)),
            };
        }
        text.parse()
            .map(CpuSpec::Riscv)
            .map_err(|error: <CpuModel as FromStr>::Err| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_both_instruction_sets_have_names() {
        for name in ["x86-64-v2", "x86-64-v3", "x86-64-v3,smap=off"] {
            let cpu: CpuSpec = name.parse().unwrap();
            assert_eq!((cpu.isa(), cpu.to_string()), (Isa::X86_64, name.to_owned()));
            assert!(cpu.is_legal(1) && !cpu.is_legal(2));
        }
        assert_eq!("rv64".parse(), Ok(CpuSpec::default()));
        assert!("x86-64-v9".parse::<CpuSpec>().unwrap_err().contains("x86-64-v3"));
        assert!("mips".parse::<CpuSpec>().is_err());
    }

    #[test]
    fn a_model_that_is_none_of_ours_is_refused() {
        let mut model = Model::v3();
        model.set(mimic_cpu::x86::model::feature::NX, false);
        assert!(CpuSpec::X86(model.clone()).is_legal(1));
        model.tsc_hz = 2_000_000_000;
        assert!(CpuSpec::X86(model.clone()).is_legal(1), "hosts' counters differ");
        model.tsc_hz = 0;
        assert!(!CpuSpec::X86(model.clone()).is_legal(1));
        model.tsc_hz = Model::v3().tsc_hz;
        // Long mode is always there.
        model.set(mimic_cpu::x86::model::feature::LM, false);
        assert!(!CpuSpec::X86(model).is_legal(1));
    }
}
