//! Running one instruction natively: all registers from a [`State`], the instruction, all registers back.

use std::mem::offset_of;
use std::sync::Once;

use iced_x86::code_asm::*;
use iced_x86::{Encoder, IcedError};
use memmap2::{Mmap, MmapMut};
use mimic_cpu::x86::simd::{Mxcsr, V256};

use crate::forms::Form;

/// Vector and MMX registers that are compared.
pub(crate) const VECTORS: usize = 6;
/// Bytes of memory, the operand's address being in their middle.
pub(crate) const MEMORY: usize = 256;
/// The arithmetic flags: CF, PF, AF, ZF, SF, OF.
pub(crate) const FLAGS: u64 = 0x8d5;

/// Registers and memory before and after an instruction.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct State {
    pub memory: [u8; MEMORY],
    pub ymm: [V256; VECTORS],
    pub mm: [u64; VECTORS],
    /// RAX, RCX, RDX, RBX.
    pub gpr: [u64; 4],
    pub flags: u64,
    pub mxcsr: u32,
    /// What MXCSR is for Rust.
    default_mxcsr: u32,
    /// Distance of the memory operand from the middle of `memory`.
    pub offset: u64,
    /// Where to go on after a signal.
    recovery: u64,
    /// The signal the instruction caused, 0 if none.
    pub signal: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            memory: [0; MEMORY],
            ymm: [V256::default(); VECTORS],
            mm: [0; VECTORS],
            gpr: [0; 4],
            flags: 0,
            mxcsr: Mxcsr::RESET,
            default_mxcsr: Mxcsr::RESET,
            offset: 0,
            recovery: 0,
            signal: 0,
        }
    }
}

impl State {
    /// Where the memory operand is when `offset` is zero.
    pub(crate) fn operand(&self) -> u64 {
        self.memory[MEMORY / 2..].as_ptr() as u64
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.ymm == other.ymm
            && self.mm == other.mm
            && self.gpr == other.gpr
            && (self.flags ^ other.flags) & FLAGS == 0
            && self.mxcsr == other.mxcsr
            && self.signal == other.signal
            && self.memory == other.memory
    }

    /// What differs from `other`, in words.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let mut parts = Vec::new();
        for i in 0..VECTORS {
            if self.ymm[i] != other.ymm[i] {
                let [a, b, c, d] = self.ymm[i].0;
                parts.push(format!("ymm{i} {d:016x}_{c:016x}_{b:016x}_{a:016x}"));
            }
            if self.mm[i] != other.mm[i] {
                parts.push(format!("mm{i} {:016x}", self.mm[i]));
            }
        }
        if self.gpr != other.gpr {
            parts.push(format!("gpr {:x?}", self.gpr));
        }
        if (self.flags ^ other.flags) & FLAGS != 0 {
            parts.push(format!("flags {:x}", self.flags & FLAGS));
        }
        if self.mxcsr != other.mxcsr {
            parts.push(format!("mxcsr {:x}", self.mxcsr));
        }
        if self.signal != other.signal {
            parts.push(format!("signal {}", self.signal));
        }
        if self.memory != other.memory {
            parts.push(format!("memory {:x?}", &self.memory[MEMORY / 2..MEMORY / 2 + 32]));
        }
        parts.join(", ")
    }
}

/// A form in executable memory, once for each immediate.
pub(crate) struct Native {
    code: Mmap,
    /// Size of one immediate's code.
    size: usize,
    /// Distance of the instruction's end from the start of its code.
    recovery: usize,
}

impl Native {
    pub(crate) fn new(form: &Form) -> Self {
        catch_signals();
        let (before, after) = (prologue(), epilogue());
        let immediates = if form.op.immediate { 256 } else { 1 };
        let mut bytes = Vec::new();
        let mut size = 0;
        let mut recovery = 0;
        for imm in 0..immediates {
            let mut encoder = Encoder::new(64);
            encoder
                .encode(&form.instruction(imm as u8), 0)
                .unwrap_or_else(|error| panic!("{:?}: {error}", form.code));
            bytes.extend(&before);
            bytes.extend(encoder.take_buffer());
            recovery = if imm == 0 { bytes.len() } else { recovery };
            bytes.extend(&after);
            size = if imm == 0 { bytes.len() } else { size };
        }
        assert_eq!(bytes.len(), size * immediates, "{:?}: immediates change the length", form.code);
        let mut memory = MmapMut::map_anon(bytes.len()).expect("anonymous memory");
        memory.copy_from_slice(&bytes);
        Self { code: memory.make_exec().expect("executable memory"), size, recovery }
    }

    /// Performs the instruction on `state`. A signal is recorded there, the registers being what they were then.
    pub(crate) fn run(&self, imm: u8, state: &mut State) {
        let from = if self.size < self.code.len() { usize::from(imm) * self.size } else { 0 };
        let start = &raw const self.code[from];
        state.recovery = start as u64 + self.recovery as u64;
        // SAFETY: the code is `prologue`, one vector instruction and `epilogue`: a function by the System V ABI that touches
        // nothing but the state it is given, whose memory holds the operand with room on both sides.
        unsafe {
            let run: unsafe extern "sysv64" fn(*mut State) = std::mem::transmute(start);
            run(state);
        }
    }
}

fn avx() -> bool {
    is_x86_feature_detected!("avx")
}

fn assembled(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    build(&mut a).and_then(|()| a.assemble(0)).expect("valid code")
}

const XMMS: [AsmRegisterXmm; VECTORS] = [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5];
const YMMS: [AsmRegisterYmm; VECTORS] = [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5];
const MMS: [AsmRegisterMm; VECTORS] = [mm0, mm1, mm2, mm3, mm4, mm5];
const GPRS: [AsmRegister64; 4] = [rax, rcx, rdx, rbx];

/// Loads all registers from the state at RDI, which moves to R8.
fn prologue() -> Vec<u8> {
    assembled(|a| {
        a.push(rbx)?;
        a.mov(r8, rdi)?;
        a.lea(rsi, qword_ptr(r8 + offset_of!(State, memory) + MEMORY / 2))?;
        a.add(rsi, qword_ptr(r8 + offset_of!(State, offset)))?;
        a.mov(rdi, rsi)?;
        for i in 0..VECTORS {
            let place = r8 + offset_of!(State, ymm) + i * 32;
            if avx() {
                a.vmovdqu(YMMS[i], ymmword_ptr(place))?;
            } else {
                a.movdqu(XMMS[i], xmmword_ptr(place))?;
            }
            a.movq(MMS[i], qword_ptr(r8 + offset_of!(State, mm) + i * 8))?;
        }
        for (i, gpr) in GPRS.into_iter().enumerate() {
            a.mov(gpr, qword_ptr(r8 + offset_of!(State, gpr) + i * 8))?;
        }
        a.ldmxcsr(dword_ptr(r8 + offset_of!(State, mxcsr)))?;
        a.push(qword_ptr(r8 + offset_of!(State, flags)))?;
        a.popfq()
    })
}

/// Stores all registers to the state at R8.
fn epilogue() -> Vec<u8> {
    assembled(|a| {
        a.pushfq()?;
        a.pop(qword_ptr(r8 + offset_of!(State, flags)))?;
        a.stmxcsr(dword_ptr(r8 + offset_of!(State, mxcsr)))?;
        a.ldmxcsr(dword_ptr(r8 + offset_of!(State, default_mxcsr)))?;
        for i in 0..VECTORS {
            let place = r8 + offset_of!(State, ymm) + i * 32;
            if avx() {
                a.vmovdqu(ymmword_ptr(place), YMMS[i])?;
            } else {
                a.movdqu(xmmword_ptr(place), XMMS[i])?;
            }
            a.movq(qword_ptr(r8 + offset_of!(State, mm) + i * 8), MMS[i])?;
        }
        for (i, gpr) in GPRS.into_iter().enumerate() {
            a.mov(qword_ptr(r8 + offset_of!(State, gpr) + i * 8), gpr)?;
        }
        a.emms()?;
        if avx() {
            a.vzeroupper()?;
        }
        a.pop(rbx)?;
        a.ret()
    })
}

/// The end of a page behind which is one that cannot be touched.
pub(crate) fn end_of_memory() -> u64 {
    const PAGE: usize = 4096;
    // SAFETY: a fresh mapping that nothing else knows; it stays until the process ends.
    unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            2 * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(start, libc::MAP_FAILED, "two pages");
        let end = start as usize + PAGE;
        assert_eq!(libc::mprotect(end as *mut libc::c_void, PAGE, libc::PROT_NONE), 0);
        end as u64
    }
}

/// SIGFPE and SIGSEGV of a native instruction are written into the state, and its code goes on behind it.
fn catch_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [libc::SIGFPE, libc::SIGSEGV] {
            // SAFETY: an all-zero sigaction is valid; the handler has the signature SA_SIGINFO asks for and touches only
            // the state of the instruction it interrupted.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = recover as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO;
                assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
            }
        }
    });
}

extern "C" fn recover(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext_t. The signals arise from the instruction under test only (a test failure
    // otherwise), while R8 points to its state.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let state = registers[libc::REG_R8 as usize] as *mut State;
        (*state).signal = signal as u64;
        registers[libc::REG_RIP as usize] = (*state).recovery as i64;
    }
}
