//! Guest code of the tests.

/// Assembles position-independent code: `assemble!(; addi a0, a0, 1 ; ...)`.
macro_rules! assemble {
    ($($code:tt)*) => {{
        #[allow(unused_imports)]
        use dynasmrt::{DynasmApi as _, DynasmLabelApi as _};
        let mut ops = dynasmrt::VecAssembler::<dynasmrt::riscv::RiscvRelocation>::new(0);
        dynasmrt::dynasm!(ops
            ; .arch riscv64
            ; .feature i,m,a,f,d,c,zicsr,zifencei
            $($code)*);
        ops.finalize().expect("code that can be placed")
    }};
}
pub(crate) use assemble;
