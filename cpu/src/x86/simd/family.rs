//! Operations at each width, and the macros by which the table writes them down. The table has in scope what they name.

use super::op::{FlagsFn, Fp3Fn, FpFn, Int3Fn, IntFn, Run};

/// An operation for 64 (MMX), 128 and 256 bits.
pub(super) enum Family {
    Int([IntFn; 3]),
    Int3([Int3Fn; 3]),
    Fp([FpFn; 3]),
    Fp3([Fp3Fn; 3]),
    Flags([FlagsFn; 3]),
    Other(Run),
}

/// What else tells operations of one mnemonic apart.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Whether an operand is memory.
    pub(super) memory: bool,
    /// Whether the destination is memory.
    pub(super) store: bool,
    /// Whether a general register is one of 64 bits.
    pub(super) wide: bool,
    /// Whether a shift's count is a vector, not an immediate.
    pub(super) vector_count: bool,
}

/// `a = operation`, generic over the width.
macro_rules! int {
    (|$a:pat_param, $b:pat_param, $i:pat_param| $operation:expr) => {
        Family::Int([
            |x, y, $i| {
                let ($a, $b) = (V64::low(x), V64::low(y));
                Vector::put($operation, x)
            },
            |x, y, $i| {
                let ($a, $b) = (V128::low(x), V128::low(y));
                Vector::put($operation, x)
            },
            |x, y, $i| {
                let ($a, $b) = (V256::low(x), V256::low(y));
                Vector::put($operation, x)
            },
        ])
    };
}

/// As `int`, for an operation that knows vectors of one block: 256 bits are two of them.
macro_rules! blocks {
    (|$a:pat_param, $b:pat_param, $i:pat_param| $operation:expr) => {
        Family::Int([
            |x, y, $i| {
                let ($a, $b) = (V64::low(x), V64::low(y));
                Vector::put($operation, x)
            },
            |x, y, $i| {
                let ($a, $b) = (V128::low(x), V128::low(y));
                Vector::put($operation, x)
            },
            |x, y, $i| *x = x.blocks(*y, |$a, $b| $operation),
        ])
    };
    ($operation:expr) => {
        blocks!(|a, b, _| $operation(a, b))
    };
}

/// `a = operation(a, b)`.
macro_rules! ab {
    ($operation:expr) => {
        int!(|a, b, _| $operation(a, b))
    };
}

/// `a = operation(b)`.
macro_rules! b {
    ($operation:expr) => {
        int!(|_, b, _| $operation(b))
    };
}

/// `a = operation(a, b, immediate)`.
macro_rules! abi {
    ($operation:expr) => {
        int!(|a, b, i| $operation(a, b, i))
    };
}

/// `a = operation(b, immediate)`.
macro_rules! bi {
    ($operation:expr) => {
        int!(|_, b, i| $operation(b, i))
    };
}

/// A shift by a vector's low 64 bits or by the immediate.
macro_rules! shift {
    ($form:ident, $operation:expr) => {
        if $form.vector_count {
            int!(|a, b, _| $operation(a, b.words()[0]))
        } else {
            int!(|a, _, i| $operation(a, u64::from(i)))
        }
    };
}

/// As `int`, for an operation that exists for 128 bits only.
macro_rules! xmm {
    (|$a:pat_param, $b:pat_param, $i:pat_param| $operation:expr) => {
        Family::Int(
            [|x, y, $i| {
                let ($a, $b) = (V128::low(x), V128::low(y));
                Vector::put($operation, x)
            }; 3],
        )
    };
}

/// PSLLDQ, PSRLDQ: blocks of 128 bits, and none of 64.
macro_rules! xmm_blocks {
    (|$a:pat_param, $i:pat_param| $operation:expr) => {
        Family::Int([
            |x, _, $i| {
                let $a = V128::low(x);
                Vector::put($operation, x)
            },
            |x, _, $i| {
                let $a = V128::low(x);
                Vector::put($operation, x)
            },
            |x, _, $i| *x = x.blocks(*x, |$a, _| $operation),
        ])
    };
}

/// As `int`, for an operation that exists for 256 bits only.
macro_rules! ymm {
    (|$a:pat_param, $b:pat_param, $i:pat_param| $operation:expr) => {
        Family::Int(
            [|x, y, $i| {
                let ($a, $b) = (V256::low(x), V256::low(y));
                Vector::put($operation, x)
            }; 3],
        )
    };
}

/// `a = operation`, with three sources.
macro_rules! int3 {
    (|$a:pat_param, $b:pat_param, $c:pat_param| $operation:expr) => {
        Family::Int3([
            |x, y, z| {
                let ($a, $b, $c) = (V128::low(x), V128::low(y), V128::low(z));
                Vector::put($operation, x)
            },
            |x, y, z| {
                let ($a, $b, $c) = (V128::low(x), V128::low(y), V128::low(z));
                Vector::put($operation, x)
            },
            |x, y, z| {
                let ($a, $b, $c) = (V256::low(x), V256::low(y), V256::low(z));
                Vector::put($operation, x)
            },
        ])
    };
}

/// `a = operation` of floating point for one type of vector.
macro_rules! fp_fn {
    ($vector:ident, |$fp:ident, $a:pat_param, $b:pat_param, $i:pat_param| $operation:expr) => {
        |mxcsr, x, y, $i| {
            let mut fp = Fp::new(mxcsr);
            let ($fp, $a, $b) = (&mut fp, $vector::low(x), $vector::low(y));
            Vector::put($operation, x);
            fp.finish()
        }
    };
}

/// A packed operation of floating point.
macro_rules! packed {
    (|$fp:ident, $a:pat_param, $b:pat_param, $i:pat_param| $operation:expr) => {
        Family::Fp([
            fp_fn!(V128, |$fp, $a, $b, $i| $operation),
            fp_fn!(V128, |$fp, $a, $b, $i| $operation),
            fp_fn!(V256, |$fp, $a, $b, $i| $operation),
        ])
    };
    ($operation:expr) => {
        packed!(|fp, a, b, _| $operation(fp, a, b))
    };
}

/// A scalar operation of floating point.
macro_rules! scalar {
    (|$fp:ident, $a:pat_param, $b:pat_param, $i:pat_param| $operation:expr) => {
        Family::Fp([fp_fn!(V128, |$fp, $a, $b, $i| $operation); 3])
    };
    ($operation:expr) => {
        scalar!(|fp, a, b, _| $operation(fp, a, b))
    };
}

/// A form of FMA, `packed` or `scalar`.
macro_rules! fma {
    ($kind:ident, $form:ident, $type:ty, $order:ident) => {
        Family::Fp3([
            fma!(@ V128, $kind, $form, $type, $order),
            fma!(@ V128, $kind, $form, $type, $order),
            fma!(@ V256, $kind, $form, $type, $order),
        ])
    };
    (@ $vector:ident, $kind:ident, $form:ident, $type:ty, $order:ident) => {
        |mxcsr, x, y, z| {
            let mut fp = Fp::new(mxcsr);
            let [a, b, c] = [$vector::low(x), $vector::low(y), $vector::low(z)];
            let r = fma::$kind::<$type, _>(&mut fp, fma::Form::$form, fma::Order::$order, [a, b, c]);
            Vector::put(r, x);
            fp.finish()
        }
    };
}

/// COMISS and the like.
macro_rules! comis {
    ($type:ty, $quietness:expr) => {
        Family::Flags(
            [|mxcsr, a, b| {
                let mut fp = Fp::new(mxcsr);
                let flags =
                    float::comis::<$type, _>(&mut fp, V128::low(a), V128::low(b), $quietness);
                (flags, fp.finish())
            }; 3],
        )
    };
}

/// PTEST, VTESTPS, VTESTPD: ZF if no bit of `mask` is set in both, CF if none is set in `b` alone.
macro_rules! test {
    ($mask:expr) => {
        Family::Flags([
            |_, a, b| test(&V128::low(a), &V128::low(b), $mask),
            |_, a, b| test(&V128::low(a), &V128::low(b), $mask),
            |_, a, b| test(a, b, $mask),
        ])
    };
}
