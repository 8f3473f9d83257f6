//! Zba, Zbb, Zbc, Zbs and Zicond. Expected values: Unprivileged ISA, "B" and "Zicond", computed
//! bit by bit or with wide arithmetic.

use super::operands::{Random, pairs, sext32, singles};
use crate::suite::{Suite, rv};

/// Two-register instructions by mnemonic and function.
macro_rules! binary {
    ($s:expr; $($($i:ident).+ = $f:expr;)*) => {$(
        $s.binary(&name(stringify!($($i).+)), |s, d, a, b| rv!(s; $($i).+ X(d), X(a), X(b)), &rows($f));
    )*};
}

/// One-register instructions by mnemonic and function.
macro_rules! unary {
    ($s:expr; $($($i:ident).+ = $f:expr;)*) => {$(
        $s.unary(&name(stringify!($($i).+)), |s, d, a| rv!(s; $($i).+ X(d), X(a)), &single_rows($f));
    )*};
}

/// Instructions with a shift amount, at several amounts.
macro_rules! immediate {
    ($s:expr, $bits:expr; $($($i:ident).+ = $f:expr;)*) => {$(
        for shamt in [0u32, 1, 5, 7, 8, 15, 16, 30, 31, 32, 33, 47, 62, 63] {
            if shamt < $bits {
                let f = |a: u64| -> u64 { $f(a, shamt) };
                let name = format!("{} {shamt}", name(stringify!($($i).+)));
                $s.unary(&name, |s, d, a| rv!(s; $($i).+ X(d), X(a), shamt), &single_rows(f));
            }
        }
    )*};
}

/// `stringify!` may put spaces around the dots of a mnemonic.
fn name(mnemonic: &str) -> String {
    mnemonic.replace(' ', "")
}

/// Edge pairs and 64 random ones.
fn rows(f: impl Fn(u64, u64) -> u64) -> Vec<[u64; 3]> {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut rows = pairs(&f);
    for _ in 0..64 {
        let (a, b) = (random.next(), random.next());
        rows.push([a, b, f(a, b)]);
    }
    rows
}

/// Edge values, every bit, and 32 random ones.
fn single_rows(f: impl Fn(u64) -> u64) -> Vec<[u64; 2]> {
    let mut random = Random(0x0fed_cba9_8765_4321);
    let mut rows = singles(&f);
    rows.extend((0..32).map(|_| random.next()).map(|a| [a, f(a)]));
    rows
}

fn bit(v: u64, i: u32) -> u64 {
    v >> (i % 64) & 1
}

/// Assembles a word from its bits, lowest first.
fn bits(f: impl Fn(u32) -> u64) -> u64 {
    (0..64).fold(0, |v, i| v | (f(i) & 1) << i)
}

fn byte_map(v: u64, f: impl Fn(usize, &[u8; 8]) -> u8) -> u64 {
    let bytes = v.to_le_bytes();
    u64::from_le_bytes(std::array::from_fn(|i| f(i, &bytes)))
}

pub(super) fn zba(s: &mut Suite) {
    let add = |a: u64, b: u64, scale: u128| (u128::from(a) * scale + u128::from(b)) as u64;
    let low = |a: u64| a % (1 << 32);
    binary!(s;
        sh1add = |a, b| add(a, b, 2);
        sh2add = |a, b| add(a, b, 4);
        sh3add = |a, b| add(a, b, 8);
        add.uw = |a, b| add(low(a), b, 1);
        sh1add.uw = |a, b| add(low(a), b, 2);
        sh2add.uw = |a, b| add(low(a), b, 4);
        sh3add.uw = |a, b| add(low(a), b, 8);
    );
    immediate!(s, 64; slli.uw = |a: u64, n: u32| (u128::from(low(a)) << n) as u64;);
}

pub(super) fn zbb(s: &mut Suite) {
    let signed = |v: u64| i128::from(v as i64);
    let rotate = |a: u64, n: u64| bits(|i| bit(a, i + 64 - (n % 64) as u32));
    let rotate32 = |a: u64, n: u64| {
        sext32((0..32u32).fold(0, |v, i| v | bit(a, (i + 32 - (n % 32) as u32) % 32) << i))
    };
    let leading =
        |a: u64, top: u32| (0..top).take_while(|i| bit(a, top - 1 - i) == 0).count() as u64;
    let trailing = |a: u64, top: u32| (0..top).take_while(|i| bit(a, *i) == 0).count() as u64;
    let ones = |a: u64, top: u32| (0..top).map(|i| bit(a, i)).sum::<u64>();
    binary!(s;
        andn = |a: u64, b: u64| bits(|i| bit(a, i) * (1 - bit(b, i)));
        orn = |a: u64, b: u64| bits(|i| 1 - (1 - bit(a, i)) * bit(b, i));
        xnor = |a: u64, b: u64| bits(|i| u64::from(bit(a, i) == bit(b, i)));
        max = |a: u64, b: u64| if signed(a) < signed(b) { b } else { a };
        min = |a: u64, b: u64| if signed(a) < signed(b) { a } else { b };
        maxu = |a: u64, b: u64| if a < b { b } else { a };
        minu = |a: u64, b: u64| if a < b { a } else { b };
        rol = |a: u64, b: u64| rotate(a, b);
        ror = |a: u64, b: u64| rotate(a, 64 - b % 64);
        rolw = |a: u64, b: u64| rotate32(a, b);
        rorw = |a: u64, b: u64| rotate32(a, 32 - b % 32);
    );
    unary!(s;
        clz = |a: u64| leading(a, 64);
        clzw = |a: u64| leading(a, 32);
        ctz = |a: u64| trailing(a, 64);
        ctzw = |a: u64| trailing(a, 32);
        cpop = |a: u64| ones(a, 64);
        cpopw = |a: u64| ones(a, 32);
        sext.b = |a: u64| bits(|i| bit(a, i.min(7)));
        sext.h = |a: u64| bits(|i| bit(a, i.min(15)));
        zext.h = |a: u64| a % 0x1_0000;
        rev8 = |a: u64| byte_map(a, |i, b| b[7 - i]);
        orc.b = |a: u64| byte_map(a, |i, b| if b[i] == 0 { 0 } else { 0xff });
    );
    immediate!(s, 64; rori = |a: u64, n: u32| rotate(a, 64 - u64::from(n)););
    immediate!(s, 32; roriw = |a: u64, n: u32| rotate32(a, 32 - u64::from(n)););
}

pub(super) fn zbc(s: &mut Suite) {
    // The 127-bit carry-less product.
    let product = |a: u64, b: u64| {
        (0..64u32).filter(|i| bit(b, *i) == 1).fold(0u128, |p, i| p ^ u128::from(a) << i)
    };
    binary!(s;
        clmul = |a, b| product(a, b) as u64;
        clmulh = |a, b| (product(a, b) >> 64) as u64;
        clmulr = |a, b| (product(a, b) >> 63) as u64;
    );
}

pub(super) fn zbs(s: &mut Suite) {
    let set =
        |a: u64, n: u64, to: u64| bits(|i| if u64::from(i) == n % 64 { to } else { bit(a, i) });
    binary!(s;
        bset = |a: u64, b: u64| set(a, b, 1);
        bclr = |a: u64, b: u64| set(a, b, 0);
        binv = |a: u64, b: u64| set(a, b, 1 - bit(a, (b % 64) as u32));
        bext = |a: u64, b: u64| bit(a, (b % 64) as u32);
    );
    immediate!(s, 64;
        bseti = |a: u64, n: u32| set(a, n.into(), 1);
        bclri = |a: u64, n: u32| set(a, n.into(), 0);
        binvi = |a: u64, n: u32| set(a, n.into(), 1 - bit(a, n));
        bexti = |a: u64, n: u32| bit(a, n);
    );
}

pub(super) fn zicond(s: &mut Suite) {
    binary!(s;
        czero.eqz = |a: u64, b: u64| if b == 0 { 0 } else { a };
        czero.nez = |a: u64, b: u64| if b == 0 { a } else { 0 };
    );
}
