//! Fast calls of a system and back: SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 3, 6.8.7 and 6.8.8; vol. 2; AMD's
//! *Architecture Programmer's Manual* vol. 3 for its processors, which do otherwise outside 64-bit mode).

use iced_x86::code_asm::*;

use super::{Cell, LANDING_STACK, Mode, Stub, Table, Word, at, end, selector};

/// MSRs, at [`at::MSRS`] in this order.
const MSRS: &[u32] = &[
    0xc000_0080, // EFER
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // FMASK
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
];
const EFER: u32 = at::MSRS;
const STAR: u32 = at::MSRS + 8;
const LSTAR: u32 = at::MSRS + 16;
const CSTAR: u32 = at::MSRS + 24;
const FMASK: u32 = at::MSRS + 32;
const SYSENTER_CS: u32 = at::MSRS + 40;
const SYSENTER_ESP: u32 = at::MSRS + 48;
const SYSENTER_EIP: u32 = at::MSRS + 56;
/// EFER.SCE, and what IA-32e mode needs of it.
const SCE: u32 = 1;
const LME: u32 = 0x900;

/// Flags: NT, DF and the arithmetic ones with AC; TF.
const MANY: u32 = 0x4_4cd7;
const TF: u32 = 0x102;

const WORDS: &[Word] = &[
    Word::Vector,
    Word::Error,
    Word::Ip,
    Word::Cs,
    Word::Eflags,
    Word::Eax,
    Word::Ecx,
    Word::Ss,
    Word::Data,
];

/// What runs the instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum World {
    Protected,
    Compatibility,
    Bits64,
}

macro_rules! stub {
    ($bits:expr, |$a:ident| $code:expr) => {
        Stub {
            bits: $bits,
            code: |$a| {
                $code?;
                end($a)
            },
        }
    };
}

impl World {
    fn bits(self) -> u32 {
        if self == World::Bits64 { 64 } else { 32 }
    }

    fn code(self) -> u16 {
        if self == World::Bits64 { selector::CODE64 } else { selector::CODE32 }
    }

    /// SYSCALL with the flags in EBX; SYSRET and SYSEXIT to what EDX:ECX, EBX:EDX and EAX:ECX make where there are 64
    /// bits, with the flags in EBX.
    fn stubs(self) -> Vec<(&'static str, Stub)> {
        let bits = self.bits();
        if bits == 32 {
            return vec![
                (
                    "syscall",
                    stub!(bits, |a| {
                        a.push(ebx)?;
                        a.popfd()?;
                        a.syscall()
                    }),
                ),
                ("sysret", stub!(bits, |a| a.sysret())),
                ("sysenter", stub!(bits, |a| a.sysenter())),
                ("sysexit", stub!(bits, |a| a.sysexit())),
            ];
        }
        vec![
            (
                "syscall",
                stub!(bits, |a| {
                    a.push(rbx)?;
                    a.popfq()?;
                    a.syscall()
                }),
            ),
            (
                "sysret",
                stub!(bits, |a| {
                    a.shl(rdx, 32)?;
                    a.or(rcx, rdx)?;
                    a.mov(r11d, ebx)?;
                    a.sysret()
                }),
            ),
            (
                "sysret of 64 bits",
                stub!(bits, |a| {
                    a.shl(rdx, 32)?;
                    a.or(rcx, rdx)?;
                    a.mov(r11d, ebx)?;
                    a.sysretq()
                }),
            ),
            ("sysenter", stub!(bits, |a| a.sysenter())),
            (
                "sysexit",
                stub!(bits, |a| {
                    a.shl(rbx, 32)?;
                    a.or(rdx, rbx)?;
                    a.shl(rax, 32)?;
                    a.or(rcx, rax)?;
                    a.sysexit()
                }),
            ),
            (
                "sysexit of 64 bits",
                stub!(bits, |a| {
                    a.shl(rbx, 32)?;
                    a.or(rdx, rbx)?;
                    a.shl(rax, 32)?;
                    a.or(rcx, rax)?;
                    a.sysexitq()
                }),
            ),
        ]
    }

    /// What the MSRs begin with.
    fn live(self) -> Vec<(u32, u32)> {
        let efer = if self == World::Protected { 0 } else { LME };
        vec![
            (EFER, efer | SCE),
            (STAR, at::LANDING),
            (STAR + 4, 0),
            (LSTAR, at::LANDING),
            (CSTAR, LANDING_STACK),
            (SYSENTER_ESP, at::inner_stack(2)),
            (SYSENTER_EIP, LANDING_STACK),
        ]
    }

    fn cells(self) -> Vec<Cell> {
        let efer = if self == World::Protected { 0 } else { LME };
        // Selectors whose neighbours are what the instructions pretend; others they do not look at.
        let selectors = [u32::from(self.code()), 0, 3, u32::from(self.code()) | 3, 0xfff8, 0xfffb];
        // Upper halves of addresses.
        let uppers: &[u32] =
            if self == World::Bits64 { &[0, 1, 0x8000, 0xffff_8000] } else { &[0] };
        let mut cells = Vec::new();
        for (stub, (name, _)) in self.stubs().into_iter().enumerate() {
            let mut push = |row: String, column: String, level, registers, pokes| {
                let code = selector::of(self.code(), level);
                cells.push(Cell {
                    row: format!("{name} {row}"),
                    column,
                    stub,
                    cs: code,
                    registers,
                    pokes,
                });
            };
            for level in 0..4u8 {
                for selector in selectors {
                    if name == "syscall" {
                        for (sce, mask) in [(0, 0), (SCE, 0), (SCE, 0x4_7700), (SCE, u32::MAX)] {
                            for (flags_name, flags) in [("none", 2), ("many", MANY), ("TF", TF)] {
                                let pokes =
                                    vec![(EFER, efer | sce), (STAR + 4, selector), (FMASK, mask)];
                                let row = format!("SCE {sce} selector {selector:x} mask {mask:x}");
                                let column = format!("CPL {level} flags {flags_name}");
                                push(row, column, level, [0, flags, 0, 0], pokes);
                            }
                        }
                    } else if name.starts_with("sysret") {
                        for sce in [0, SCE] {
                            for flags in [2, MANY, 0x3202, u32::MAX] {
                                for &upper in uppers {
                                    let pokes =
                                        vec![(EFER, efer | sce), (STAR + 4, selector << 16)];
                                    let row = format!("SCE {sce} selector {selector:x}");
                                    let column =
                                        format!("CPL {level} flags {flags:x} upper half {upper:x}");
                                    let registers = [0, flags, at::LANDING, upper];
                                    push(row, column, level, registers, pokes);
                                }
                            }
                        }
                    } else {
                        for &ip_half in uppers {
                            for &sp_half in uppers {
                                if name == "sysenter" && (ip_half, sp_half) != (0, 0) {
                                    continue;
                                }
                                let pokes = vec![(SYSENTER_CS, selector)];
                                let row = format!("selector {selector:x}");
                                let column = format!(
                                    "CPL {level} upper halves {ip_half:x} of IP {sp_half:x} of SP"
                                );
                                let registers = [sp_half, ip_half, at::stack(3), LANDING_STACK];
                                push(row, column, level, registers, pokes);
                            }
                        }
                    }
                }
            }
        }
        cells.sort_by_cached_key(|cell| (cell.stub, cell.row.clone()));
        cells
    }

    fn table(self, expected: &'static str) -> Table {
        Table {
            mode: if self == World::Protected { Mode::Protected } else { Mode::Long },
            stubs: self.stubs().into_iter().map(|(_, stub)| stub).collect(),
            live: self.live(),
            frames: Vec::new(),
            user_stubs: at::STUBS,
            msrs: MSRS,
            watch: Vec::new(),
            words: WORDS,
            cells: self.cells(),
            expected,
        }
    }
}

macro_rules! tables {
    ($($name:ident $world:ident $file:literal;)*) => {
        $(pub(super) fn $name() -> Table {
            World::$world.table(include_str!(concat!("expected/", $file, ".txt")))
        })*
    };
}
tables! {
    intel_32 Protected "fast-32";
    intel_compatibility Compatibility "fast-compatibility";
    intel_64 Bits64 "fast-64";
    amd_32 Protected "fast-32-amd";
    amd_compatibility Compatibility "fast-compatibility-amd";
    amd_64 Bits64 "fast-64-amd";
}
