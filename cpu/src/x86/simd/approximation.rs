//! RCPPS, RSQRTPS of one number.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
pub(super) use host::{reciprocal, reciprocal_root};
#[cfg(not(target_arch = "x86_64"))]
pub(super) use portable::{reciprocal, reciprocal_root};

/// The host's own approximation, which differs from model to model within a relative error of 1.5 * 2^-12 (Intel SDM
/// volume 2): translated code runs the same instruction. It does not depend on MXCSR.
#[cfg(target_arch = "x86_64")]
mod host {
    use std::arch::x86_64::{_mm_cvtss_f32, _mm_rcp_ss, _mm_rsqrt_ss, _mm_set_ss};

    #[inline(always)]
    pub(in super::super) fn reciprocal(a: f32) -> f32 {
        // SAFETY: every x86-64 processor has SSE.
        unsafe { _mm_cvtss_f32(_mm_rcp_ss(_mm_set_ss(a))) }
    }

    #[inline(always)]
    pub(in super::super) fn reciprocal_root(a: f32) -> f32 {
        // SAFETY: every x86-64 processor has SSE.
        unsafe { _mm_cvtss_f32(_mm_rsqrt_ss(_mm_set_ss(a))) }
    }
}

/// Exact but for rounding, which is within the instructions' relative error; denormal operands and tiny results are zeros
/// (Intel SDM volume 2).
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    fn flushed(a: f32) -> f32 {
        if a.is_subnormal() { 0.0f32.copysign(a) } else { a }
    }

    fn quieted(a: f32) -> f32 {
        f32::from_bits(a.to_bits() | 1 << 22)
    }

    pub(in super::super) fn reciprocal(a: f32) -> f32 {
        if a.is_nan() { quieted(a) } else { flushed(1.0 / flushed(a)) }
    }

    pub(in super::super) fn reciprocal_root(a: f32) -> f32 {
        let b = flushed(a);
        if b.is_nan() {
            quieted(b)
        } else if b < 0.0 {
            // The "QNaN floating-point indefinite".
            f32::from_bits(0xffc0_0000)
        } else {
            1.0 / b.sqrt()
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{host, portable};

    /// Either is within the architecture's error of the true value, so they are within twice that of each other.
    fn close(a: f32, portable: f32, host: f32) {
        let same = portable.to_bits() == host.to_bits();
        let near = (portable - host).abs() <= host.abs() * (3.0 / 4096.0);
        assert!(same || near, "{a:e}: {portable:e}, host {host:e}");
    }

    #[test]
    fn portable_approximations_are_close_to_the_hosts() {
        let specials = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -1e-40, 1.0, -1.0];
        let nans = [0x7f80_0001, 0xffc0_1234].map(f32::from_bits);
        // Every 4096th number but those whose reciprocal is tiny: there processors differ.
        let all = (0..1u32 << 20).map(|i| f32::from_bits(i << 12 | 0x5a5));
        for a in specials.into_iter().chain(nans).chain(all) {
            if a.abs() < 1e38f32 / 2.0 || !a.is_finite() {
                close(a, portable::reciprocal(a), host::reciprocal(a));
            }
            close(a, portable::reciprocal_root(a), host::reciprocal_root(a));
        }
    }
}
