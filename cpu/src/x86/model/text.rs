//! A model as text: `x86-64-v3,smap=off,phys-bits=36,vendor=amd`.

use std::fmt;
use std::str::FromStr;

use super::feature::{self as f, ALL};
use super::{Feature, Model, PHYS_BITS, Vendor};

/// A model by its name, and what it stands for.
pub struct Named {
    /// The name.
    pub name: &'static str,
    /// What it stands for, in a line.
    pub about: &'static str,
    make: fn() -> Model,
}

impl Named {
    /// The model.
    #[must_use]
    pub fn model(&self) -> Model {
        (self.make)()
    }
}

/// All models.
pub const MODELS: [Named; 2] = [
    Named { name: "x86-64-v2", about: "SSE4.2, POPCNT, CMPXCHG16B", make: Model::v2 },
    Named {
        name: "x86-64-v3",
        about: "and AVX2, BMI, FMA, LZCNT, MOVBE, as far as they are performed here",
        make: Model::v3,
    },
];

/// What every processor with long mode has, or what the board cannot do without: it cannot be switched.
const ALWAYS: [Feature; 19] = [
    f::FPU,
    f::PSE,
    f::TSC,
    f::MSR,
    f::PAE,
    f::CX8,
    f::APIC,
    f::SEP,
    f::MTRR,
    f::PGE,
    f::CMOV,
    f::PAT,
    f::CLFSH,
    f::MMX,
    f::FXSR,
    f::SSE,
    f::SSE2,
    f::SYSCALL,
    f::LM,
];

/// Features and what each cannot be without (SDM vol. 1, 13.2, 14.3 and chapter 12).
const NEEDS: [(Feature, Feature); 14] = [
    (f::SSSE3, f::SSE3),
    (f::SSE4_1, f::SSSE3),
    (f::SSE4_2, f::SSE4_1),
    (f::AVX, f::XSAVE),
    (f::AVX, f::SSE4_2),
    (f::AVX2, f::AVX),
    (f::FMA, f::AVX),
    (f::F16C, f::AVX),
    (f::XSAVEOPT, f::XSAVE),
    (f::XSAVEC, f::XSAVE),
    (f::XGETBV1, f::XSAVE),
    (f::PDPE1GB, f::LM),
    (f::LA57, f::LM),
    (f::AES, f::SSE2),
];

/// A feature that can be switched.
pub struct Switch {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: &'static str,
    feature: Feature,
}

impl Switch {
    /// Whether `model` has it.
    #[must_use]
    pub fn is_on(&self, model: &Model) -> bool {
        model.has(self.feature)
    }
}

/// Every feature that can be switched.
pub fn switches() -> impl Iterator<Item = Switch> {
    ALL.iter().filter(|(feature, ..)| !ALWAYS.contains(feature)).map(|(feature, name, about)| {
        Switch { name: name.to_ascii_lowercase().replace('_', "-"), about, feature: *feature }
    })
}

/// Why a text names no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// There is no such model.
    #[error("`{0}` is no model of x86 processors: {names}", names = MODELS.map(|m| m.name).join(", "))]
    Model(String),
    /// The model has no such feature, or it cannot be switched.
    #[error("`{0}` cannot be switched; `mimic cpus` lists what can")]
    Feature(String),
    /// Neither on nor off.
    #[error("`{0}` does not say how; write {name}=on or {name}=off", name = .0.split('=').next().unwrap_or_default())]
    Switch(String),
    /// Not that many.
    #[error("`{0}` physical address bits there cannot be: {first} to {last} can", first = PHYS_BITS.start(), last = PHYS_BITS.end())]
    PhysBits(String),
    /// Neither of the two.
    #[error("`{0}` makes no processors here; write vendor=intel or vendor=amd")]
    Vendor(String),
}

impl Model {
    /// Switches a feature, and with it what it needs, or what needs it.
    pub fn switch(&mut self, feature: Feature, on: bool) {
        self.set(feature, on);
        for (one, needed) in NEEDS {
            if on && one == feature {
                self.switch(needed, true);
            } else if !on && needed == feature && self.has(one) {
                self.switch(one, false);
            }
        }
    }
}

impl FromStr for Model {
    type Err = ModelError;

    /// `MODEL[,FEATURE=on|off...][,phys-bits=N][,vendor=intel|amd]`.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default();
        let Some(named) = MODELS.iter().find(|named| named.name == name) else {
            return Err(ModelError::Model(name.into()));
        };
        let mut model = named.model();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "phys-bits" => {
                    if !value.parse().is_ok_and(|bits| model.set_phys_bits(bits)) {
                        return Err(ModelError::PhysBits(value.into()));
                    }
                }
                "vendor" => {
                    model.vendor = match value {
                        "intel" => Vendor::Intel,
                        "amd" => Vendor::Amd,
                        _ => return Err(ModelError::Vendor(value.into())),
                    }
                }
                _ => {
                    let Some(switch) = switches().find(|switch| switch.name == name) else {
                        return Err(ModelError::Feature(name.into()));
                    };
                    let on = match value {
                        "on" | "true" => true,
                        "off" | "false" => false,
                        _ => return Err(ModelError::Switch(word.into())),
                    };
                    model.switch(switch.feature, on);
                }
            }
        }
        Ok(model)
    }
}

impl fmt::Display for Model {
    /// As [`FromStr`] reads it: the model of the fewest differences, and these.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differing = |base: &Model| {
            switches().filter(|switch| switch.is_on(base) != switch.is_on(self)).collect::<Vec<_>>()
        };
        let all = MODELS.iter().map(|named| (named, differing(&named.model())));
        let Some((named, differences)) = all.min_by_key(|(_, differences)| differences.len())
        else {
            return Ok(());
        };
        f.write_str(named.name)?;
        for switch in differences {
            write!(f, ",{}={}", switch.name, if switch.is_on(self) { "on" } else { "off" })?;
        }
        let base = named.model();
        if self.phys_bits != base.phys_bits {
            write!(f, ",phys-bits={}", self.phys_bits)?;
        }
        match self.vendor {
            Vendor::Intel => Ok(()),
            Vendor::Amd => f.write_str(",vendor=amd"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(text: &str) -> Model {
        text.parse().unwrap()
    }

    #[test]
    fn models_are_read_and_written() {
        for text in [
            "x86-64-v2",
            "x86-64-v3",
            "x86-64-v3,smep=off,smap=off",
            "x86-64-v2,movbe=on,phys-bits=36,vendor=amd",
        ] {
            assert_eq!(model(text).to_string(), text);
        }
        assert_eq!(model("x86-64-v2,smap=on"), Model::v2());
        let error = |text: &str| text.parse::<Model>().unwrap_err();
        assert_eq!(error("x86-64-v9"), ModelError::Model("x86-64-v9".into()));
        assert_eq!(error("x86-64-v3,lm=off"), ModelError::Feature("lm".into()));
        assert_eq!(error("x86-64-v3,smap"), ModelError::Switch("smap".into()));
        assert_eq!(error("x86-64-v3,phys-bits=53"), ModelError::PhysBits("53".into()));
        assert_eq!(error("x86-64-v3,vendor=via"), ModelError::Vendor("via".into()));
    }

    #[test]
    fn what_needs_a_feature_goes_and_comes_with_it() {
        let without = model("x86-64-v3,xsave=off");
        assert!(!without.has(f::AVX2) && !without.has(f::XSAVEC) && without.has(f::SSE4_2));
        let with = model("x86-64-v2,avx2=on");
        assert!(with.has(f::XSAVE) && with.has(f::AVX) && !with.has(f::FMA));
        assert_eq!(model(&without.to_string()), without);
        assert_eq!(model(&with.to_string()), with);
    }

    /// SDM vol. 2, "CPUID": leaf 0 says the vendor in EBX, EDX, ECX; leaf 0x8000_0008 the address bits.
    #[test]
    fn vendor_and_address_bits_are_reported() {
        let text = |model: &Model| {
            let [_, b, c, d] = model.cpuid(0, 0, Default::default());
            String::from_utf8([b, d, c].map(u32::to_le_bytes).concat()).unwrap()
        };
        assert_eq!(text(&model("x86-64-v3")), "GenuineIntel");
        assert_eq!(text(&model("x86-64-v3,vendor=amd")), "AuthenticAMD");
        let sizes =
            model("x86-64-v2,la57=off,phys-bits=45").cpuid(0x8000_0008, 0, Default::default());
        assert_eq!(sizes[0], 48 << 8 | 45);
    }
}
