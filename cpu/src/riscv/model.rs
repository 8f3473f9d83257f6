//! What a hart offers: the extensions it has, and those of them that can be switched when it is made.
//!
//! A model is written as QEMU writes it: `rv64,svade=off`. An extension can be switched here only if the
//! hart without it behaves as the manual says a hart without it does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::csr::fields::envcfg;

/// Single-letter extensions, in the order of the ISA string.
const SINGLE_LETTERS: &[&str] = &["i", "m", "a", "f", "d", "c"];
/// The other extensions, in the order of the ISA string.
const NAMED: &[&str] = &[
    "zicbom", "zicbop", "zicboz", "zicntr", "zicond", "zicsr", "zifencei", "zihpm", "zawrs", "zfa",
    "zfhmin", "zca", "zcb", "zcd", "zba", "zbb", "zbc", "zbs", "sstc", "svadu", "svinval",
    "svnapot", "svpbmt",
];

/// The one model there is.
const RV64: &str = "rv64";

/// A model of hart, its features switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuModel {
    /// Svade's behaviour at reset: `menvcfg.ADUE` is clear, a clear A or D bit raises a page fault. Without it
    /// ADUE is set at reset and hardware updates the bits, which guests without firmware may count on.
    /// Software that knows Svadu (privileged, 12.1) can change ADUE either way, so the ISA string, from which
    /// kernels conclude what they find in S-mode, is the same.
    pub svade: bool,
    /// Sstc: the supervisor's own timer compare register, `stimecmp`.
    pub sstc: bool,
}

impl Default for CpuModel {
    /// `rv64` with everything it has.
    fn default() -> Self {
        CpuModel { svade: true, sstc: true }
    }
}

impl CpuModel {
    /// The names of all models.
    pub const NAMES: &[&str] = &[RV64];

    /// The hart's extensions, single letters first, as `riscv,isa-extensions` lists them.
    #[must_use]
    pub fn extensions(&self) -> Vec<&'static str> {
        let present = |name: &&str| self.sstc || *name != "sstc";
        SINGLE_LETTERS.iter().chain(NAMED).copied().filter(present).collect()
    }

    /// The ISA string of the hart, as the device tree's `riscv,isa` wants it.
    #[must_use]
    pub fn isa_string(&self) -> String {
        let (single, named): (Vec<_>, Vec<_>) =
            self.extensions().into_iter().partition(|name| name.len() == 1);
        format!("{RV64}{}_{}", single.concat(), named.join("_"))
    }

    /// The bits of `menvcfg` that software may change.
    pub(super) fn menvcfg_writable(&self) -> u64 {
        envcfg::MENVCFG & !if self.sstc { 0 } else { envcfg::STCE }
    }

    /// `menvcfg` at reset.
    pub(super) fn menvcfg_at_reset(&self) -> u64 {
        if self.svade { 0 } else { envcfg::ADUE }
    }
}

/// A feature of a model that can be switched.
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// What it is and what the hart does without it, in a line.
    pub about: &'static str,
    of: fn(&mut CpuModel) -> &mut bool,
}

/// Every feature that can be switched.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "svade",
        about: "page faults for clear A and D bits from reset on; off: hardware updates them",
        of: |model| &mut model.svade,
    },
    Feature {
        name: "sstc",
        about: "supervisor timer (stimecmp); off: the timer is the firmware's",
        of: |model| &mut model.sstc,
    },
];

impl Feature {
    /// Whether `model` has it.
    #[must_use]
    pub fn is_on(&self, mut model: CpuModel) -> bool {
        *(self.of)(&mut model)
    }
}

/// Why a text names no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// There is no such model.
    #[error("there is no CPU model `{0}`; there is {names}", names = CpuModel::NAMES.join(", "))]
    Model(String),
    /// The model has no such feature, or it cannot be switched.
    #[error("`{0}` cannot be switched; {names} can", names = FEATURES.iter().map(|f| f.name).collect::<Vec<_>>().join(" and "))]
    Feature(String),
    /// Neither on nor off.
    #[error("`{0}` does not say how; write {name}=on or {name}=off", name = .0.split('=').next().unwrap_or_default())]
    Switch(String),
}

impl FromStr for CpuModel {
    type Err = ModelError;

    /// `MODEL[,FEATURE=on|off...]`.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default();
        if !CpuModel::NAMES.contains(&name) {
            return Err(ModelError::Model(name.into()));
        }
        let mut model = CpuModel::default();
        for word in words {
            let (name, switch) = word.split_once('=').unwrap_or((word, ""));
            let feature = FEATURES
                .iter()
                .find(|feature| feature.name == name)
                .ok_or_else(|| ModelError::Feature(name.into()))?;
            *(feature.of)(&mut model) = match switch {
                "on" | "true" => true,
                "off" | "false" => false,
                _ => return Err(ModelError::Switch(word.into())),
            };
        }
        Ok(model)
    }
}

impl fmt::Display for CpuModel {
    /// As [`FromStr`] reads it, with the features that differ from the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(RV64)?;
        let default = CpuModel::default();
        for feature in
            FEATURES.iter().filter(|feature| feature.is_on(*self) != feature.is_on(default))
        {
            let switch = if feature.is_on(*self) { "on" } else { "off" };
            write!(f, ",{}={switch}", feature.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::riscv::csr::{CsrOp, Outside, num};
    use crate::riscv::hart::Hart;

    struct Nothing;

    impl Outside for Nothing {
        fn time(&self) -> u64 {
            100
        }
        fn lines(&self) -> u64 {
            0
        }
    }

    fn model(text: &str) -> CpuModel {
        text.parse().unwrap()
    }

    fn hart(text: &str) -> Hart {
        Hart::of_model(model(text), 0, 0x1000)
    }

    #[test]
    fn models_are_read_and_written() {
        assert_eq!(model("rv64"), CpuModel::default());
        assert_eq!(model("rv64,svade=off,sstc=on"), CpuModel { svade: false, sstc: true });
        for text in ["rv64", "rv64,svade=off", "rv64,svade=off,sstc=off"] {
            assert_eq!(model(text).to_string(), text);
        }
        let error = |text: &str| text.parse::<CpuModel>().unwrap_err();
        assert_eq!(error("rv32"), ModelError::Model("rv32".into()));
        assert_eq!(error(""), ModelError::Model(String::new()));
        assert_eq!(error("rv64,zba=off"), ModelError::Feature("zba".into()));
        assert_eq!(error("rv64,svade"), ModelError::Switch("svade".into()));
        assert_eq!(error("rv64,svade=maybe"), ModelError::Switch("svade=maybe".into()));
    }

    /// `menvcfg.ADUE` (bit 61) resets to 0 where Svade is implemented (privileged, 3.1.18); QEMU resets it
    /// to 1 for CPUs with Svadu alone.
    #[test]
    fn svade_decides_what_menvcfg_is_at_reset() {
        assert_eq!(hart("rv64").menvcfg, 0);
        assert_eq!(hart("rv64,svade=off").menvcfg, 1 << 61);
        assert_eq!(hart("rv64,svade=off").check(), Ok(()));
        assert_eq!(model("rv64,svade=off").isa_string(), model("rv64").isa_string());
    }

    /// Without Sstc `menvcfg.STCE` is read-only zero (privileged, 3.1.18), `stimecmp` (0x14d) does not exist
    /// and `mip.STIP` is the firmware's to write.
    #[test]
    fn without_sstc_there_is_no_supervisor_timer() {
        let mut hart = hart("rv64,sstc=off");
        let all = Some(u64::MAX);
        hart.csr(CsrOp::Write, num::MENVCFG, all, &Nothing).unwrap();
        assert_eq!(hart.menvcfg >> 61, 0b011);
        assert!(hart.csr(CsrOp::Write, 0x14d, Some(0), &Nothing).is_err());
        hart.csr(CsrOp::Set, num::MIP, Some(1 << 5), &Nothing).unwrap();
        assert_eq!(hart.mip(&Nothing) >> 5 & 1, 1);
        assert_eq!(hart.check(), Ok(()));
        hart.menvcfg = envcfg::STCE;
        assert_eq!(hart.check(), Err("menvcfg"));
        assert!(model("rv64").isa_string().contains("_sstc_"));
        assert!(!model("rv64,sstc=off").isa_string().contains("sstc"));
    }

    #[test]
    fn the_isa_string_begins_with_the_single_letters() {
        let isa = CpuModel::default().isa_string();
        assert!(isa.starts_with("rv64imafdc_zicbom_"), "{isa}");
        assert!(isa.ends_with("_svadu_svinval_svnapot_svpbmt"), "{isa}");
    }
}
