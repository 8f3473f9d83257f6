//! What the harts of a machine offer, of either instruction set, and its form on the command line.

use std::fmt;
use std::str::FromStr;

use mimic_cpu::riscv::model::CpuModel;
use mimic_cpu::x86::model::Model;
use serde::{Deserialize, Serialize};

use crate::loader::Isa;

/// Models of x86 processors by their names, the default last.
type Named = (&'static str, fn() -> Model, &'static str);
const X86: [Named; 2] = [
    ("x86-64-v2", Model::v2, "SSE4.2, POPCNT, CMPXCHG16B"),
    ("x86-64-v3", Model::v3, "and AVX2, BMI, FMA, LZCNT, MOVBE, as far as they are performed here"),
];

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

    /// RISC-V's ISA string, or the name of the x86 model.
    #[must_use]
    pub fn isa_string(&self) -> String {
        match self {
            CpuSpec::Riscv(model) => model.isa_string(),
            CpuSpec::X86(model) => x86_name(model).unwrap_or("x86-64").to_owned(),
        }
    }

    /// Whether a machine of so many processors has such ones: not every model that a file may describe is one of ours.
    pub(super) fn is_legal(&self, cpus: u32) -> bool {
        match self {
            CpuSpec::Riscv(_) => true,
            // KVM leaves out of a model what the host has not, and its time-stamp counter runs as the host's does.
            CpuSpec::X86(model) => {
                let within = |(_, named, _): &Named| model.is_within(&named());
                model.cpus == cpus && model.tsc_hz != 0 && X86.iter().any(within)
            }
        }
    }
}

/// The name of an x86 model, for whatever number of processors.
fn x86_name(model: &Model) -> Option<&'static str> {
    let same = |mut named: Model| {
        named.cpus = model.cpus;
        named == *model
    };
    X86.iter().find(|(_, named, _)| same(named())).map(|(name, _, _)| *name)
}

/// The x86 models: their names, and what they stand for.
pub fn x86_models() -> impl Iterator<Item = (&'static str, &'static str)> {
    X86.iter().map(|(name, _, about)| (*name, *about))
}

impl fmt::Display for CpuSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CpuSpec::Riscv(model) => model.fmt(f),
            CpuSpec::X86(_) => f.write_str(&self.isa_string()),
        }
    }
}

impl FromStr for CpuSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((_, model, _)) = X86.iter().find(|(name, _, _)| *name == text) {
            return Ok(CpuSpec::X86(model()));
        }
        if text.starts_with("x86") {
            let names: Vec<_> = X86.iter().map(|(name, _, _)| *name).collect();
            return Err(format!("`{text}` is no model of x86 processors: {}", names.join(", ")));
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
        for name in ["x86-64-v2", "x86-64-v3"] {
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
        model.set(mimic_cpu::x86::model::feature::LA57, false);
        assert!(CpuSpec::X86(model.clone()).is_legal(1), "some hosts have less");
        model.tsc_hz = 0;
        assert!(!CpuSpec::X86(model).is_legal(1));
        let text = serde_json::to_string(&Model::v3()).unwrap();
        // A bit of leaf 1's EDX that has no name here: machine checks.
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["words"][1] = (value["words"][1].as_u64().unwrap() | 1 << 7).into();
        let model: Model = serde_json::from_value(value).unwrap();
        assert!(!CpuSpec::X86(model).is_legal(1));
    }
}
