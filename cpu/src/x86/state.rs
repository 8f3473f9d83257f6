//! The canonical state of a processor: plain data, what a snapshot holds and engines exchange.

use serde::{Deserialize, Serialize};

use super::flags::bit;
use super::model::Model;
use super::msr::misc_enable;
use super::simd::{Mxcsr, V256};
use super::x87;

/// Numbers of the general-purpose registers.
pub mod gpr {
    /// RAX.
    pub const RAX: u8 = 0;
    /// RCX.
    pub const RCX: u8 = 1;
    /// RDX.
    pub const RDX: u8 = 2;
    /// RBX.
    pub const RBX: u8 = 3;
    /// RSP.
    pub const RSP: u8 = 4;
    /// RBP.
    pub const RBP: u8 = 5;
    /// RSI.
    pub const RSI: u8 = 6;
    /// RDI.
    pub const RDI: u8 = 7;
    /// R11, which SYSCALL uses.
    pub const R11: u8 = 11;
}

/// Numbers of the segment registers.
pub mod sreg {
    /// ES.
    pub const ES: u8 = 0;
    /// CS.
    pub const CS: u8 = 1;
    /// SS.
    pub const SS: u8 = 2;
    /// DS.
    pub const DS: u8 = 3;
    /// FS.
    pub const FS: u8 = 4;
    /// GS.
    pub const GS: u8 = 5;
}

/// CR0 (SDM vol. 3, 2.5).
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1;
    /// Monitor coprocessor.
    pub const MP: u64 = 1 << 1;
    /// Emulation: no x87.
    pub const EM: u64 = 1 << 2;
    /// Task switched.
    pub const TS: u64 = 1 << 3;
    /// Extension type: always one.
    pub const ET: u64 = 1 << 4;
    /// Numeric error: #MF instead of the external interrupt.
    pub const NE: u64 = 1 << 5;
    /// Write protect.
    pub const WP: u64 = 1 << 16;
    /// Alignment mask.
    pub const AM: u64 = 1 << 18;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// XCR0 (SDM vol. 1, 13.3).
pub mod xcr0 {
    /// x87 state, always.
    pub const X87: u64 = 1;
    /// The XMM registers, and MXCSR.
    pub const SSE: u64 = 1 << 1;
    /// The upper halves of the YMM registers.
    pub const AVX: u64 = 1 << 2;
    /// PKRU.
    pub const PKRU: u64 = 1 << 9;
}

/// CR4 (SDM vol. 3, 2.5).
pub mod cr4 {
    /// Virtual-8086 extensions.
    pub const VME: u64 = 1;
    /// Protected-mode virtual interrupts.
    pub const PVI: u64 = 1 << 1;
    /// RDTSC is privileged.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions.
    pub const DE: u64 = 1 << 3;
    /// 4 MiB pages.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine checks.
    pub const MCE: u64 = 1 << 6;
    /// Global pages.
    pub const PGE: u64 = 1 << 7;
    /// RDPMC for everybody.
    pub const PCE: u64 = 1 << 8;
    /// FXSAVE and SSE.
    pub const OSFXSR: u64 = 1 << 9;
    /// Unmasked SIMD exceptions raise #XM.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// SGDT and its like are privileged.
    pub const UMIP: u64 = 1 << 11;
    /// 5-level paging.
    pub const LA57: u64 = 1 << 12;
    /// RDFSBASE and its like.
    pub const FSGSBASE: u64 = 1 << 16;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// XSAVE.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Supervisor-mode execution prevention.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor-mode access prevention.
    pub const SMAP: u64 = 1 << 21;
    /// Protection keys of user-mode pages.
    pub const PKE: u64 = 1 << 22;
    /// Protection keys of supervisor-mode pages.
    pub const PKS: u64 = 1 << 24;
}

/// EFER (SDM vol. 3, 2.2.1).
pub mod efer {
    /// SYSCALL enable.
    pub const SCE: u64 = 1;
    /// Long mode enable.
    pub const LME: u64 = 1 << 8;
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
    /// Execute disable.
    pub const NXE: u64 = 1 << 11;
}

/// A segment register with what it caches of its descriptor (SDM vol. 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// What software sees.
    pub selector: u16,
    /// Linear address of its first byte.
    pub base: u64,
    /// Offset of its last byte, in bytes whatever the granularity (expand-down: of the byte before its first).
    pub limit: u32,
    /// [`rights`]: bits 8 to 15 and 20 to 23 of the descriptor's second word, shifted right by 8.
    pub rights: u32,
}

/// Access rights of a segment, as VMX has them too (SDM vol. 3, table 26-2).
pub mod rights {
    /// The type: four bits.
    pub const TYPE: u32 = 0xf;
    /// Type: accessed.
    pub const ACCESSED: u32 = 1;
    /// Type of data: writable; of code: readable.
    pub const WRITABLE: u32 = 1 << 1;
    /// Type of data: expand-down; of code: conforming.
    pub const EXPAND_DOWN: u32 = 1 << 2;
    /// Type: code.
    pub const CODE: u32 = 1 << 3;
    /// Code or data, not a system segment.
    pub const S: u32 = 1 << 4;
    /// Where the descriptor privilege level begins.
    pub const DPL_SHIFT: u32 = 5;
    /// Present.
    pub const P: u32 = 1 << 7;
    /// For software.
    pub const AVL: u32 = 1 << 12;
    /// 64-bit code.
    pub const L: u32 = 1 << 13;
    /// 32-bit code, or stack.
    pub const DB: u32 = 1 << 14;
    /// The limit is in pages.
    pub const G: u32 = 1 << 15;
    /// Nothing is loaded (a null selector).
    pub const UNUSABLE: u32 = 1 << 16;
}

impl Segment {
    /// A segment of real mode: `base` is 16 times the selector, 64 KiB, readable and writable.
    #[must_use]
    pub fn real(selector: u16, code: bool) -> Self {
        let kind = rights::ACCESSED | rights::WRITABLE | if code { rights::CODE } else { 0 };
        Segment {
            selector,
            base: u64::from(selector) << 4,
            limit: 0xffff,
            rights: kind | rights::S | rights::P,
        }
    }

    /// A null selector: nothing can be accessed.
    #[must_use]
    pub fn null(selector: u16) -> Self {
        Segment { selector, base: 0, limit: 0, rights: rights::UNUSABLE }
    }

    /// Descriptor privilege level.
    #[must_use]
    pub fn dpl(&self) -> u8 {
        (self.rights >> rights::DPL_SHIFT & 3) as u8
    }

    /// Whether all of `bits` of [`rights`] are set.
    #[must_use]
    pub fn has(&self, bits: u32) -> bool {
        self.rights & bits == bits
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear address.
    pub base: u64,
    /// Offset of its last byte.
    pub limit: u16,
}

/// What the processor does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Performs instructions.
    #[default]
    Running,
    /// HLT: waits for an interrupt.
    Halted,
    /// Waits for the start-up message.
    WaitForStartup,
    /// A triple fault: only NMI, INIT and reset get it out.
    Shutdown,
}

/// What is blocked until the next instruction is over (SDM vol. 3, 7.8.3 and "Interruptibility state" in table
/// 26-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shadow {
    /// Nothing.
    #[default]
    None,
    /// After STI: maskable interrupts.
    Sti,
    /// After a load of SS: interrupts and debug exceptions.
    MovSs,
}

/// Model-specific registers that are plain storage here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Msrs {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub sfmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// Added to the machine's time-stamp counter.
    pub tsc_offset: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_PKRS.
    pub pkrs: u32,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub mtrr_def_type: u64,
    /// IA32_MTRR_PHYSBASEn and PHYSMASKn, in pairs.
    pub mtrr_var: [u64; 16],
    /// The fixed-range MTRRs: 64K_00000, 16K_80000, 16K_A0000, 4K_C0000 to 4K_F8000.
    pub mtrr_fixed: [u64; 11],
}

/// Everything that makes a processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// What it offers.
    pub model: Model,
    /// Its number: the initial APIC ID.
    pub id: u32,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// RIP, as an offset into CS.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub seg: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// Current privilege level.
    pub cpl: u8,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3, without bit 63.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// The four page-directory-pointer-table entries that PAE paging loads with CR3.
    pub pdpte: [u64; 4],
    /// XCR0.
    pub xcr0: u64,
    /// PKRU: for each protection key, two bits that disable accesses and writes.
    pub pkru: u32,
    /// DR0 to DR7; 4 and 5 are unused.
    pub dr: [u64; 8],
    /// Model-specific registers.
    pub msr: Msrs,
    /// The x87 unit, whose registers are MMX's, too.
    pub x87: x87::State,
    /// YMM0 to YMM15.
    pub ymm: [V256; 16],
    /// MXCSR.
    pub mxcsr: Mxcsr,
    /// What it does.
    pub activity: Activity,
    /// What is blocked for one instruction.
    pub shadow: Shadow,
    /// An NMI is being handled: further ones wait for IRET.
    pub nmi_blocked: bool,
    /// An NMI waits.
    pub nmi_pending: bool,
    /// Instructions retired.
    pub retired: u64,
}

impl Cpu {
    /// A processor after power-up or reset (SDM vol. 3, table 10-1): at the reset vector in real mode.
    #[must_use]
    pub fn new(id: u32, model: Model) -> Self {
        let code = Segment { base: 0xffff_0000, ..Segment::real(0xf000, true) };
        let data = Segment::real(0, false);
        let system =
            |kind| Segment { selector: 0, base: 0, limit: 0xffff, rights: kind | rights::P };
        let table = TableRegister { base: 0, limit: 0xffff };
        let mut gpr = [0; 16];
        gpr[usize::from(gpr::RDX)] = u64::from(model.signature());
        let mut cpu = Cpu {
            model,
            id,
            gpr,
            rip: 0xfff0,
            rflags: bit::FIXED,
            seg: [data; 6],
            // An LDT (2) and a busy 16-bit TSS (3).
            ldtr: system(2),
            tr: system(3),
            gdtr: table,
            idtr: table,
            cpl: 0,
            cr0: cr0::CD | cr0::NW | cr0::ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            pdpte: [0; 4],
            xcr0: 1,
            pkru: 0,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            msr: Msrs {
                star: 0,
                lstar: 0,
                cstar: 0,
                sfmask: 0,
                kernel_gs_base: 0,
                sysenter_cs: 0,
                sysenter_esp: 0,
                sysenter_eip: 0,
                tsc_aux: 0,
                spec_ctrl: 0,
                tsc_offset: 0,
                pat: 0x0007_0406_0007_0406,
                misc_enable: misc_enable::RESET,
                pkrs: 0,
                debugctl: 0,
                mtrr_def_type: 0,
                mtrr_var: [0; 16],
                mtrr_fixed: [0; 11],
            },
            x87: x87::State::reset(),
            ymm: [V256::default(); 16],
            mxcsr: Mxcsr::default(),
            activity: Activity::Running,
            shadow: Shadow::None,
            nmi_blocked: false,
            nmi_pending: false,
            retired: 0,
        };
        cpu.seg[usize::from(sreg::CS)] = code;
        cpu
    }

    /// INIT (SDM vol. 3, table 10-1): as [`Cpu::new`], but floating-point state, time-stamp counter, MTRRs and most
    /// other MSRs stay, and CR0 keeps CD and NW.
    pub fn init(&mut self) {
        let fresh = Cpu::new(self.id, self.model.clone());
        let old = std::mem::replace(self, fresh);
        self.cr0 = old.cr0 & (cr0::CD | cr0::NW) | cr0::ET;
        self.msr = old.msr;
        self.xcr0 = old.xcr0;
        self.pkru = old.pkru;
        self.x87 = old.x87;
        self.ymm = old.ymm;
        self.mxcsr = old.mxcsr;
        self.retired = old.retired;
    }
}
