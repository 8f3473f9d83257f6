//! Performing an operation of the table on a [`State`], as the module's documentation says: what a processor around it
//! does.

use mimic_cpu::x86::simd::{
    Exceptions, Kind, Lengths, Mxcsr, Operand, Run, SimdOp, V256, crc32, gather_index, pcmpstri,
    pcmpstrm,
};

use crate::forms::INDICES;
use crate::host::{FLAGS, MEMORY, State};

/// Where `State::gpr` has the general register of an operand of that number: RBX, RCX, RDX.
const GPR: [usize; 3] = [3, 1, 2];
/// The scale of the forms' gathers.
const SCALE: u64 = 4;

pub(crate) fn perform(op: &SimdOp, imm: u8, state: &mut State) {
    let mut a = read(op, op.a, state);
    let b = read(op, op.b, state);
    let c = read(op, op.c, state);
    let mxcsr = Mxcsr::from_bits(state.mxcsr).expect("no reserved bits");
    match op.run {
        Run::Int(f) => f(&mut a, &b, imm),
        Run::Int3(f) => f(&mut a, &b, &c),
        Run::Fp(f) => {
            if trapped(state, f(mxcsr, &mut a, &b, imm)) {
                return;
            }
        }
        Run::Fp3(f) => {
            if trapped(state, f(mxcsr, &mut a, &b, &c)) {
                return;
            }
        }
        Run::Flags(f) => {
            let (flags, raised) = f(mxcsr, &a, &b);
            if !trapped(state, raised) {
                set_flags(state, flags);
            }
            return;
        }
        Run::StringIndex(lengths) => {
            let (index, flags) = pcmpstri(&a, &b, imm, explicit(lengths, state));
            state.gpr[1] = u64::from(index);
            set_flags(state, flags);
            return;
        }
        Run::StringMask(lengths) => {
            let (mask, flags) = pcmpstrm(&a, &b, imm, explicit(lengths, state));
            state.ymm[0].0[..2].copy_from_slice(&mask.0[..2]);
            if op.zero_upper {
                state.ymm[0].zero_upper();
            }
            set_flags(state, flags);
            return;
        }
        Run::Crc32(bytes) => a = V256::from_u64(u64::from(crc32(a.0[0] as u32, b.0[0], bytes))),
        Run::MaskedLoad(size) => {
            let mask = a.signs(size, op.width);
            a = V256::default();
            for i in (0..usize::from(op.width / size)).filter(|i| mask >> i & 1 != 0) {
                a.set_element(i, size, b.element(i, size));
            }
        }
        Run::MaskedStore(size) => {
            let mask = a.signs(size, op.memory);
            a = V256::default();
            a.bytes_mut()[..usize::from(op.memory)]
                .copy_from_slice(&state.memory[MEMORY / 2..][..usize::from(op.memory)]);
            for i in (0..usize::from(op.memory / size)).filter(|i| mask >> i & 1 != 0) {
                a.set_element(i, size, b.element(i, size));
            }
        }
        Run::Gather { element, index, count } => {
            let old = state.ymm[usize::from(op.dst.number) + 1];
            let mut gathered = V256::default();
            for i in 0..usize::from(count) {
                let value = if a.element(i, element) >> (element * 8 - 1) == 0 {
                    old.element(i, element)
                } else {
                    let index = gather_index(&state.ymm[INDICES], i, index);
                    let at = (MEMORY as u64 / 2).wrapping_add(index.wrapping_mul(SCALE)) as usize;
                    let mut bytes = [0; 8];
                    bytes[..usize::from(element)]
                        .copy_from_slice(&state.memory[at..at + usize::from(element)]);
                    u64::from_le_bytes(bytes)
                };
                gathered.set_element(i, element, value);
            }
            state.ymm[usize::from(op.a.number) + 1] = V256::default();
            a = gathered;
        }
    }
    write(op, &a, state);
}

/// Records what was raised; whether it is an exception the host signals.
fn trapped(state: &mut State, raised: Exceptions) -> bool {
    let mut mxcsr = Mxcsr::from_bits(state.mxcsr).expect("no reserved bits");
    let trapped = mxcsr.accrue(raised);
    state.mxcsr = mxcsr.bits();
    if trapped {
        state.signal = libc::SIGFPE as u64;
    }
    trapped
}

fn set_flags(state: &mut State, flags: u32) {
    state.flags = state.flags & !FLAGS | u64::from(flags);
}

fn explicit(lengths: Lengths, state: &State) -> Option<[i64; 2]> {
    let [rax, _, rdx, _] = state.gpr;
    match lengths {
        Lengths::Implicit => None,
        Lengths::Explicit32 => Some([rax, rdx].map(|length| i64::from(length as i32))),
        Lengths::Explicit64 => Some([rax, rdx].map(|length| length as i64)),
    }
}

fn read(op: &SimdOp, operand: Operand, state: &State) -> V256 {
    let n = usize::from(operand.number);
    match operand.kind {
        Kind::None => V256::default(),
        Kind::Mm => V256::from_u64(state.mm[n + 1]),
        Kind::Vector => state.ymm[n + 1],
        Kind::Xmm0 => state.ymm[0],
        Kind::Gpr8 => V256::from_u64(state.gpr[GPR[n]] & 0xff),
        Kind::Gpr16 => V256::from_u64(state.gpr[GPR[n]] & 0xffff),
        Kind::Gpr32 => V256::from_u64(state.gpr[GPR[n]] & 0xffff_ffff),
        Kind::Gpr64 => V256::from_u64(state.gpr[GPR[n]]),
        Kind::Memory => {
            let mut value = V256::default();
            let size = usize::from(op.memory);
            value.bytes_mut()[..size].copy_from_slice(&state.memory[MEMORY / 2..][..size]);
            value
        }
    }
}

fn write(op: &SimdOp, value: &V256, state: &mut State) {
    let n = usize::from(op.dst.number);
    match op.dst.kind {
        Kind::None | Kind::Xmm0 | Kind::Gpr8 | Kind::Gpr16 => panic!("no destination: {op:?}"),
        Kind::Mm => state.mm[n + 1] = value.0[0],
        Kind::Vector => {
            let size = usize::from(op.width);
            state.ymm[n + 1].bytes_mut()[..size].copy_from_slice(&value.bytes()[..size]);
            if op.zero_upper {
                state.ymm[n + 1].zero_upper();
            }
        }
        Kind::Gpr32 => state.gpr[GPR[n]] = value.0[0] & 0xffff_ffff,
        Kind::Gpr64 => state.gpr[GPR[n]] = value.0[0],
        Kind::Memory => {
            let size = usize::from(op.memory);
            state.memory[MEMORY / 2..][..size].copy_from_slice(&value.bytes()[..size]);
        }
    }
}
