//! What a processor offers, fixed when the machine is made, and what CPUID says of it (SDM vol. 2, "CPUID").

use iced_x86::CpuidFeature;
use serde::{Deserialize, Serialize};

use super::state::xcr0;

pub mod text;

/// Words of features that CPUID reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Leaf 1, ECX.
    L1Ecx,
    /// Leaf 1, EDX.
    L1Edx,
    /// Leaf 7, subleaf 0, EBX.
    L7Ebx,
    /// Leaf 7, subleaf 0, ECX.
    L7Ecx,
    /// Leaf 7, subleaf 0, EDX.
    L7Edx,
    /// Leaf 0xd, subleaf 1, EAX.
    LdEax,
    /// Leaf 0x8000_0001, ECX.
    X1Ecx,
    /// Leaf 0x8000_0001, EDX.
    X1Edx,
}

/// A feature as CPUID reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature(Word, u8);

macro_rules! features {
    ($($name:ident = $word:ident $bit:literal, $doc:literal;)*) => {
        /// The features that this processor may offer: what has no name here is never promised.
        pub mod feature {
            use super::{Feature, Word};
            $(
                #[doc = $doc]
                pub const $name: Feature = Feature(Word::$word, $bit);
            )*
            /// All of them, with their names and what they are.
            pub const ALL: &[(Feature, &str, &str)] = &[$(($name, stringify!($name), $doc)),*];
        }
    };
}
features! {
    SSE3 = L1Ecx 0, "SSE3.";
    PCLMULQDQ = L1Ecx 1, "PCLMULQDQ.";
    MONITOR = L1Ecx 3, "MONITOR and MWAIT.";
    SSSE3 = L1Ecx 9, "SSSE3.";
    FMA = L1Ecx 12, "FMA.";
    CMPXCHG16B = L1Ecx 13, "CMPXCHG16B.";
    PCID = L1Ecx 17, "Process-context identifiers.";
    SSE4_1 = L1Ecx 19, "SSE4.1.";
    SSE4_2 = L1Ecx 20, "SSE4.2.";
    X2APIC = L1Ecx 21, "x2APIC.";
    MOVBE = L1Ecx 22, "MOVBE.";
    POPCNT = L1Ecx 23, "POPCNT.";
    TSC_DEADLINE = L1Ecx 24, "The local APIC's timer by TSC deadline.";
    AES = L1Ecx 25, "AES.";
    XSAVE = L1Ecx 26, "XSAVE.";
    AVX = L1Ecx 28, "AVX.";
    F16C = L1Ecx 29, "F16C.";
    RDRAND = L1Ecx 30, "RDRAND.";
    HYPERVISOR = L1Ecx 31, "The processor is not a real one.";
    FPU = L1Edx 0, "x87.";
    VME = L1Edx 1, "Virtual-8086 mode extensions, and virtual interrupts of protected mode.";
    DE = L1Edx 2, "Breakpoints on I/O ports.";
    PSE = L1Edx 3, "4 MiB pages.";
    TSC = L1Edx 4, "RDTSC.";
    MSR = L1Edx 5, "RDMSR and WRMSR.";
    PAE = L1Edx 6, "Physical address extension.";
    MCE = L1Edx 7, "The machine-check exception.";
    CX8 = L1Edx 8, "CMPXCHG8B.";
    APIC = L1Edx 9, "A local APIC.";
    SEP = L1Edx 11, "SYSENTER and SYSEXIT.";
    MTRR = L1Edx 12, "Memory-type range registers.";
    PGE = L1Edx 13, "Global pages.";
    MCA = L1Edx 14, "The machine-check architecture.";
    CMOV = L1Edx 15, "CMOVcc.";
    PAT = L1Edx 16, "Page attribute table.";
    PSE36 = L1Edx 17, "4 MiB pages above 4 GiB.";
    CLFSH = L1Edx 19, "CLFLUSH.";
    MMX = L1Edx 23, "MMX.";
    FXSR = L1Edx 24, "FXSAVE.";
    SSE = L1Edx 25, "SSE.";
    SSE2 = L1Edx 26, "SSE2.";
    FSGSBASE = L7Ebx 0, "RDFSBASE and its like.";
    TSC_ADJUST = L7Ebx 1, "IA32_TSC_ADJUST.";
    BMI1 = L7Ebx 3, "BMI1.";
    AVX2 = L7Ebx 5, "AVX2.";
    SMEP = L7Ebx 7, "Supervisor-mode execution prevention.";
    BMI2 = L7Ebx 8, "BMI2.";
    ERMS = L7Ebx 9, "Fast REP MOVSB and STOSB.";
    INVPCID = L7Ebx 10, "INVPCID.";
    RDSEED = L7Ebx 18, "RDSEED.";
    ADX = L7Ebx 19, "ADCX and ADOX.";
    SMAP = L7Ebx 20, "Supervisor-mode access prevention.";
    CLFLUSHOPT = L7Ebx 23, "CLFLUSHOPT.";
    CLWB = L7Ebx 24, "CLWB.";
    SHA = L7Ebx 29, "SHA.";
    UMIP = L7Ecx 2, "User-mode instruction prevention.";
    PKU = L7Ecx 3, "Protection keys of user-mode pages.";
    LA57 = L7Ecx 16, "5-level paging.";
    RDPID = L7Ecx 22, "RDPID.";
    PKS = L7Ecx 31, "Protection keys of supervisor-mode pages.";
    XSAVEOPT = LdEax 0, "XSAVEOPT.";
    XSAVEC = LdEax 1, "XSAVEC.";
    XGETBV1 = LdEax 2, "XGETBV of what is in use.";
    SPEC_CTRL = L7Edx 26, "IA32_SPEC_CTRL and IA32_PRED_CMD.";
    ARCH_CAPABILITIES = L7Edx 29, "IA32_ARCH_CAPABILITIES: which faults of other processors this one does not have.";
    LAHF_LM = X1Ecx 0, "LAHF and SAHF in 64-bit mode.";
    LZCNT = X1Ecx 5, "LZCNT.";
    PREFETCHW = X1Ecx 8, "PREFETCHW.";
    SYSCALL = X1Edx 11, "SYSCALL in 64-bit mode.";
    NX = X1Edx 20, "Execute disable.";
    PDPE1GB = X1Edx 26, "1 GiB pages.";
    RDTSCP = X1Edx 27, "RDTSCP.";
    LM = X1Edx 29, "Long mode.";
}

impl Feature {
    /// Its name, as constants of [`feature`] are written.
    #[must_use]
    pub fn name(self) -> &'static str {
        let row = feature::ALL.iter().find(|(feature, ..)| *feature == self);
        row.map_or("", |(_, name, _)| name)
    }

    /// Where CPUID reports it: leaf, subleaf, register (EAX is 0, EBX 1, ECX 2, EDX 3) and bit.
    #[must_use]
    pub fn place(self) -> (u32, u32, usize, u8) {
        let (leaf, subleaf, register) = match self.0 {
            Word::L1Ecx => (1, 0, 2),
            Word::L1Edx => (1, 0, 3),
            Word::L7Ebx => (7, 0, 1),
            Word::L7Ecx => (7, 0, 2),
            Word::L7Edx => (7, 0, 3),
            Word::LdEax => (0xd, 1, 0),
            Word::X1Ecx => (0x8000_0001, 0, 2),
            Word::X1Edx => (0x8000_0001, 0, 3),
        };
        (leaf, subleaf, register, self.1)
    }
}

/// Whose manual counts where Intel's and AMD's differ, and what CPUID says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vendor {
    /// `GenuineIntel`.
    #[default]
    Intel,
    /// `AuthenticAMD`: SYSCALL and SYSRET outside 64-bit mode, too; SYSENTER and SYSEXIT only outside IA-32e mode.
    Amd,
}

/// A model of processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The feature words, in the order of [`Word`].
    words: [u32; 8],
    /// Who it says has made it.
    pub vendor: Vendor,
    /// Physical address bits.
    phys_bits: u32,
    /// Frequency of the time-stamp counter.
    pub tsc_hz: u64,
    /// Logical processors in the machine.
    pub cpus: u32,
}

/// Physical address bits that a model may have: as many as a 32-bit kernel with PAE expects, to all.
pub const PHYS_BITS: std::ops::RangeInclusive<u32> = 36..=52;

/// Features that `x86-64-v3` adds to `x86-64-v2`.
const V3: [Feature; 12] = [
    feature::AVX,
    feature::AVX2,
    feature::BMI1,
    feature::BMI2,
    feature::F16C,
    feature::FMA,
    feature::LZCNT,
    feature::MOVBE,
    feature::XSAVE,
    feature::XSAVEOPT,
    feature::XSAVEC,
    feature::XGETBV1,
];

/// Features that no model has unless it is asked for: an engine may have to do without them.
const ON_REQUEST: [Feature; 2] = [feature::PKU, feature::PKS];

/// Where XSAVE's standard format has its components: past what other processors have in between.
pub(super) mod xsave {
    /// The upper halves of the YMM registers.
    pub(in crate::x86) const AVX: usize = 576;
    /// PKRU.
    pub(in crate::x86) const PKRU: usize = 2688;
}

/// Bytes of XSAVE's area for components, in the compacted format or the standard one.
pub(super) fn xsave_len(components: u64, compacted: bool) -> usize {
    let avx = if components & xcr0::AVX != 0 { 256 } else { 0 };
    match (components & xcr0::PKRU != 0, compacted) {
        (false, _) => xsave::AVX + avx,
        (true, true) => xsave::AVX + avx + 8,
        (true, false) => xsave::PKRU + 8,
    }
}

impl Model {
    /// `x86-64-v2`.
    #[must_use]
    pub fn v2() -> Self {
        let mut model = Model::v3();
        for feature in V3 {
            model.set(feature, false);
        }
        model
    }

    /// `x86-64-v3`.
    #[must_use]
    pub fn v3() -> Self {
        let mut model = Model {
            words: [0; 8],
            vendor: Vendor::Intel,
            phys_bits: 40,
            tsc_hz: 1_000_000_000,
            cpus: 1,
        };
        for (feature, ..) in feature::ALL {
            model.set(*feature, !ON_REQUEST.contains(feature));
        }
        // Kernels that idle by MWAIT would never let the host rest: HLT does.
        model.set(feature::MONITOR, false);
        model
    }

    /// Adds or hides a feature.
    pub fn set(&mut self, feature: Feature, on: bool) {
        let word = &mut self.words[feature.0 as usize];
        *word = *word & !(1 << feature.1) | u32::from(on) << feature.1;
    }

    /// Whether the processor has a feature.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.words[feature.0 as usize] >> feature.1 & 1 != 0
    }

    /// Physical address bits.
    #[must_use]
    pub fn phys_bits(&self) -> u32 {
        self.phys_bits
    }

    /// Sets the physical address bits. Whether there may be so many: [`PHYS_BITS`].
    pub fn set_phys_bits(&mut self, bits: u32) -> bool {
        let legal = PHYS_BITS.contains(&bits);
        if legal {
            self.phys_bits = bits;
        }
        legal
    }

    /// Bits 51 to 0 of a physical address that no address of this processor has.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        (1 << 52) - (1 << self.phys_bits)
    }

    /// Family, model and stepping as CPUID packs them: 6, 60 and 3; or AMD's first ones with AVX2 and what goes with it,
    /// 0x17, 1 and 2.
    #[must_use]
    pub fn signature(&self) -> u32 {
        match self.vendor {
            Vendor::Intel => 0x0003_06c3,
            Vendor::Amd => 0x0080_0f12,
        }
    }

    /// Whether an instruction that belongs to `feature` exists.
    #[must_use]
    pub fn offers(&self, feature: CpuidFeature) -> bool {
        use CpuidFeature as C;
        let one = match feature {
            C::INTEL8086
            | C::INTEL8086_ONLY
            | C::INTEL186
            | C::INTEL286
            | C::INTEL386
            | C::INTEL486
            | C::X64
            | C::MULTIBYTENOP
            // ENDBR is a hint: without CET it does nothing.
            | C::CET_IBT
            | C::PAUSE
            | C::RDPMC
            | C::CPUID => return true,
            // What the 287 and 387 added, and what was new to them alone and does nothing since.
            C::FPU | C::FPU287 | C::FPU387 | C::FPU287XL_ONLY => feature::FPU,
            C::MMX => feature::MMX,
            C::FXSR => feature::FXSR,
            C::SSE => feature::SSE,
            C::SSE2 => feature::SSE2,
            C::SSE3 => feature::SSE3,
            C::SSSE3 => feature::SSSE3,
            C::SSE4_1 => feature::SSE4_1,
            C::SSE4_2 => feature::SSE4_2,
            C::AES => feature::AES,
            C::PCLMULQDQ => feature::PCLMULQDQ,
            C::SHA => feature::SHA,
            C::AVX => feature::AVX,
            C::AVX2 => feature::AVX2,
            C::F16C => feature::F16C,
            C::FMA => feature::FMA,
            C::XSAVE => feature::XSAVE,
            C::XSAVEOPT => feature::XSAVEOPT,
            C::XSAVEC => feature::XSAVEC,
            C::CMOV => feature::CMOV,
            C::CX8 => feature::CX8,
            C::CMPXCHG16B => feature::CMPXCHG16B,
            C::MSR => feature::MSR,
            C::TSC => feature::TSC,
            C::SEP => feature::SEP,
            C::SYSCALL => feature::SYSCALL,
            C::RDTSCP => feature::RDTSCP,
            C::RDPID => feature::RDPID,
            C::MONITOR => feature::MONITOR,
            C::MOVBE => feature::MOVBE,
            C::POPCNT => feature::POPCNT,
            C::LZCNT => feature::LZCNT,
            C::BMI1 => feature::BMI1,
            C::BMI2 => feature::BMI2,
            C::ADX => feature::ADX,
            C::RDRAND => feature::RDRAND,
            C::RDSEED => feature::RDSEED,
            C::FSGSBASE => feature::FSGSBASE,
            C::INVPCID => feature::INVPCID,
            C::SMAP => feature::SMAP,
            C::CLFSH => feature::CLFSH,
            C::CLFLUSHOPT => feature::CLFLUSHOPT,
            C::CLWB => feature::CLWB,
            C::PREFETCHW => feature::PREFETCHW,
            C::PKU => feature::PKU,
            _ => return false,
        };
        self.has(one)
    }

    /// The state components that XCR0 may have.
    #[must_use]
    pub fn components(&self) -> u64 {
        let avx = if self.has(feature::AVX) { xcr0::AVX } else { 0 };
        let pkru = if self.has(feature::PKU) { xcr0::PKRU } else { 0 };
        xcr0::X87 | xcr0::SSE | avx | pkru
    }

    /// EAX, EBX, ECX and EDX of a leaf. `live` says what depends on the processor's state.
    #[must_use]
    pub fn cpuid(&self, leaf: u32, subleaf: u32, live: Live) -> [u32; 4] {
        let word = |word: Word| self.words[word as usize];
        let text = |text: &[u8; 4]| u32::from_le_bytes(*text);
        // A leaf beyond the last basic one answers as that one (SDM).
        const LAST: u32 = 0x16;
        const LAST_EXTENDED: u32 = 0x8000_0008;
        let leaf = match leaf {
            0..=LAST | 0x8000_0000..=LAST_EXTENDED => leaf,
            // Reserved for hypervisors: nothing is offered there.
            0x4000_0000..=0x4fff_ffff => return [0; 4],
            _ => LAST,
        };
        match leaf {
            0 => {
                let [b, d, c] = match self.vendor {
                    Vendor::Intel => [b"Genu", b"ineI", b"ntel"],
                    Vendor::Amd => [b"Auth", b"enti", b"cAMD"],
                };
                [LAST, text(b), text(c), text(d)]
            }
            1 => {
                let osxsave = if live.osxsave { 1 << 27 } else { 0 };
                let apic = if live.apic { u32::MAX } else { !(1 << 9) };
                let ebx = live.apic_id << 24 | self.cpus.min(255) << 16 | 8 << 8;
                let htt = if self.cpus > 1 { 1 << 28 } else { 0 };
                [self.signature(), ebx, word(Word::L1Ecx) | osxsave, word(Word::L1Edx) & apic | htt]
            }
            // No cache descriptors: leaf 4 says.
            2 => [0x00ff_ff01, 0, 0, 0],
            // ARAT: the local APIC's timer never stops. Kernels tick for ever without it where no other timer could wake
            // them.
            6 => [1 << 2, 0, 0, 0],
            7 if subleaf == 0 => {
                let ospke = if live.ospke { 1 << 4 } else { 0 };
                [0, word(Word::L7Ebx), word(Word::L7Ecx) | ospke, word(Word::L7Edx)]
            }
            0xb => {
                let bits = self.cpus.next_power_of_two().trailing_zeros();
                match subleaf {
                    0 => [0, 1, 1 << 8, live.apic_id],
                    1 => [bits, self.cpus, 2 << 8 | 1, live.apic_id],
                    _ => [0, 0, subleaf & 0xff, live.apic_id],
                }
            }
            0xd if self.has(feature::XSAVE) => {
                let len = |components, compacted| xsave_len(components, compacted) as u32;
                let all = self.components();
                match subleaf {
                    0 => [all as u32, len(live.xcr0, false), len(all, false), (all >> 32) as u32],
                    1 => [word(Word::LdEax), len(live.xcr0, true), 0, 0],
                    // Sizes and places of components.
                    2 if all & xcr0::AVX != 0 => [256, xsave::AVX as u32, 0, 0],
                    9 if all & xcr0::PKRU != 0 => [8, xsave::PKRU as u32, 0, 0],
                    _ => [0; 4],
                }
            }
            // The core crystal clock runs as the time-stamp counter.
            0x15 => [1, 1, u32::try_from(self.tsc_hz).unwrap_or(0), 0],
            0x16 => [(self.tsc_hz / 1_000_000) as u32 & 0xffff, 0, 0, 0],
            0x8000_0000 => [LAST_EXTENDED, 0, 0, 0],
            0x8000_0001 => [0, 0, word(Word::X1Ecx), word(Word::X1Edx)],
            0x8000_0002 => [text(b"Mimi"), text(b"c x8"), text(b"6-64"), 0],
            // The time-stamp counter is invariant.
            0x8000_0007 => [0, 0, 0, 1 << 8],
            0x8000_0008 => {
                let linear = if self.has(feature::LA57) { 57 } else { 48 };
                [linear << 8 | self.phys_bits, 0, 0, 0]
            }
            _ => [0; 4],
        }
    }
}

/// What CPUID reports of the processor's state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// CR4.PKE.
    pub ospke: bool,
    /// The local APIC is enabled.
    pub apic: bool,
    /// The initial APIC ID.
    pub apic_id: u32,
    /// XCR0.
    pub xcr0: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_where_cpuid_reports_them() {
        let (none, live) = (Model { words: [0; 8], ..Model::v3() }, Live::default());
        for (feature, name, _) in feature::ALL {
            let mut model = none.clone();
            model.set(*feature, true);
            assert_eq!(feature.name(), *name);
            let (leaf, subleaf, register, bit) = feature.place();
            // Leaf 0xd exists with XSAVE.
            model.set(feature::XSAVE, true);
            let live = Live { apic: true, ..live };
            let word = model.cpuid(leaf, subleaf, live)[register];
            assert_eq!(word >> bit & 1, 1, "{}", feature.name());
        }
    }

    #[test]
    fn a_hidden_feature_is_neither_reported_nor_decoded() {
        // SDM vol. 2, "CPUID": BMI1 is leaf 7, EBX bit 3; MOVBE is leaf 1, ECX bit 22.
        let live = Live::default();
        for (model, there) in [(Model::v2(), 0), (Model::v3(), 1)] {
            assert_eq!(model.cpuid(7, 0, live)[1] >> 3 & 1, there);
            assert_eq!(model.cpuid(1, 0, live)[2] >> 22 & 1, there);
            assert_eq!(model.offers(CpuidFeature::BMI1), there == 1);
            assert_eq!(model.offers(CpuidFeature::MOVBE), there == 1);
        }
    }
}
