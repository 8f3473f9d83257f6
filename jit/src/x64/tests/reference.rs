//! What the integer operations do, in the plainest Rust, after the RISC-V unprivileged manual. What blocks do
//! says `ir::eval`.

use mimic_cpu::riscv::sem::{Bin, Un};

fn sext(value: u32) -> u64 {
    i64::from(value as i32) as u64
}

pub(super) fn bin(op: Bin, a: u64, b: u64) -> u64 {
    let (sa, sb) = (a as i64, b as i64);
    let (wa, wb) = (a as u32, b as u32);
    let (za, zb) = (u128::from(a), u128::from(b));
    let carry_less = || {
        let mut product = 0u128;
        for bit in 0..64 {
            if b & 1 << bit != 0 {
                product ^= za << bit;
            }
        }
        product
    };
    match op {
        Bin::Add => (za + zb) as u64,
        Bin::Sub => (za + (1 << 64) - zb) as u64,
        Bin::And => a & b,
        Bin::Or => a | b,
        Bin::Xor => a ^ b,
        Bin::Sll => a << (b % 64),
        Bin::Srl => a >> (b % 64),
        Bin::Sra => (sa >> (b % 64)) as u64,
        Bin::Slt => (sa < sb).into(),
        Bin::Sltu => (a < b).into(),
        Bin::Eq => (a == b).into(),
        Bin::Mul => a.wrapping_mul(b),
        Bin::Mulh => ((i128::from(sa) * i128::from(sb)) >> 64) as u64,
        Bin::Mulhu => ((za * zb) >> 64) as u64,
        Bin::Mulhsu => ((i128::from(sa) * zb as i128) >> 64) as u64,
        Bin::Div if b == 0 => u64::MAX,
        Bin::Div => (i128::from(sa) / i128::from(sb)) as u64,
        Bin::Divu if b == 0 => u64::MAX,
        Bin::Divu => a / b,
        Bin::Rem if b == 0 => a,
        Bin::Rem => (i128::from(sa) % i128::from(sb)) as u64,
        Bin::Remu if b == 0 => a,
        Bin::Remu => a % b,
        Bin::Divw if wb == 0 => u64::MAX,
        Bin::Divw => sext((i64::from(wa as i32) / i64::from(wb as i32)) as u32),
        Bin::Divuw if wb == 0 => u64::MAX,
        Bin::Divuw => sext(wa / wb),
        Bin::Remw if wb == 0 => sext(wa),
        Bin::Remw => sext((i64::from(wa as i32) % i64::from(wb as i32)) as u32),
        Bin::Remuw if wb == 0 => sext(wa),
        Bin::Remuw => sext(wa % wb),
        Bin::Rol => a.rotate_left((b % 64) as u32),
        Bin::Ror => a.rotate_right((b % 64) as u32),
        Bin::Rolw => sext(wa.rotate_left(wb % 32)),
        Bin::Rorw => sext(wa.rotate_right(wb % 32)),
        Bin::Min => std::cmp::min(sa, sb) as u64,
        Bin::Minu => std::cmp::min(a, b),
        Bin::Max => std::cmp::max(sa, sb) as u64,
        Bin::Maxu => std::cmp::max(a, b),
        Bin::Clmul => carry_less() as u64,
        Bin::Clmulh => (carry_less() >> 64) as u64,
        Bin::Clmulr => (carry_less() >> 63) as u64,
    }
}

pub(super) fn un(op: Un, a: u64) -> u64 {
    let bits = |n: u32| (0..n).map(move |bit| a >> bit & 1);
    let leading = |n: u32| (0..n).rev().take_while(|bit| a >> bit & 1 == 0).count() as u64;
    let trailing = |n: u32| bits(n).take_while(|bit| *bit == 0).count() as u64;
    match op {
        Un::Clz => leading(64),
        Un::Clzw => leading(32),
        Un::Ctz => trailing(64),
        Un::Ctzw => trailing(32),
        Un::Cpop => bits(64).sum(),
        Un::Cpopw => bits(32).sum(),
        Un::OrcB => (0..8)
            .map(|byte| if a >> (8 * byte) & 0xff == 0 { 0 } else { 0xff << (8 * byte) })
            .sum(),
        Un::Rev8 => (0..8).map(|byte| (a >> (8 * byte) & 0xff) << (56 - 8 * byte)).sum(),
        Un::SextB => i64::from(a as i8) as u64,
        Un::SextH => i64::from(a as i16) as u64,
        Un::SextW => i64::from(a as i32) as u64,
        Un::ZextB => a & 0xff,
        Un::ZextH => a & 0xffff,
        Un::ZextW => a & 0xffff_ffff,
    }
}
