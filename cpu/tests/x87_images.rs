//! Images of the unit: FXSAVE's and XSAVE's against the host's instructions, the real-mode layouts of FNSTENV and FNSAVE against
//! the manual's figures (Intel SDM volume 1, 8-10 and 8-12), which no user program can make.

use mimic_cpu::x86::x87::{Constant, Format, Pointers, State};

/// A state with a different figure in each field.
fn state() -> State {
    let mut state = State::default();
    state.fldcw(0x0c7f);
    state.fld_constant(Constant::One);
    state.fld_constant(Constant::Zero);
    state.fld_m32(0x7f80_0000);
    state.pointers = Pointers { opcode: 0x5d9, cs: 0x1234, ip: 0x5678, ds: 0x9abc, dp: 0xdef0 };
    state
}

/// The linear addresses are 0x179b8 and 0xa8ab0; tags are special (R5), zero (R6), valid (R7).
#[test]
fn real_mode_16_bit() {
    let image = state().save_image(Format::Real16);
    let words = [0x0c7fu16, 0x2800, 0x1bff, 0x79b8, 0x1000 | 0x5d9, 0x8ab0, 0xa000];
    let expected: Vec<u8> = words.into_iter().flat_map(u16::to_le_bytes).collect();
    assert_eq!(image[..14], expected);
    // Infinity on top.
    assert_eq!(image[14..24], [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x7f]);
    assert_eq!(Format::Real16.image_len(), 94);
}

#[test]
fn real_mode_32_bit() {
    let mut state = state();
    // Beyond 1 MiB, as unreal mode has it: linear 0xabcd2340 and 0x765dbabc.
    state.pointers.ip = 0xabcc_0000;
    state.pointers.dp = 0x7654_0efc;
    let image = state.save_image(Format::Real32);
    let words = [
        0xffff_0c7fu32,
        0xffff_2800,
        0xffff_1bff,
        0xffff_2340,
        0x0abc_d000 | 0x5d9,
        0xffff_babc,
        0x0765_d000,
    ];
    let expected: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(image[..28], expected);
    assert_eq!(Format::Real32.image_len(), 108);
}

/// What was stored in a layout comes back from it, a linear address staying one.
#[test]
fn real_mode_round_trip() {
    for format in [Format::Real16, Format::Real32] {
        let stored = state().save_image(format);
        let mut loaded = State::default();
        loaded.frstor(format, &stored);
        assert_eq!(loaded.save_image(format), stored, "{format:?}");
        assert_eq!(loaded.pointers.ip, 0x179b8, "{format:?}");
        assert_eq!(loaded.pointers.dp, 0xa8ab0, "{format:?}");
    }
}

/// Intel SDM volume 1, 13.6: XSTATE_BV says whether the component is in its initial configuration.
#[test]
fn initial_configuration() {
    let mut state = State::default();
    assert!(state.is_initial());
    state.set_mm(0, 1);
    state.fninit();
    assert!(!state.is_initial(), "FNINIT keeps the registers");
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[path = "x87"]
mod host {
    #[path = "random.rs"]
    #[allow(dead_code)]
    mod random;

    use std::arch::asm;

    use mimic_cpu::x86::x87::State;
    use random::Random;

    /// Where FXSAVE wants it.
    #[derive(Clone)]
    #[repr(align(16))]
    struct Image([u8; 512]);

    /// Defines a function that loads and stores an image natively.
    macro_rules! through {
        ($load:literal, $store:literal) => {
            |image: &mut Image| {
                // SAFETY: MXCSR in the image is the default one and XMM registers are given up; FNINIT leaves x87 as the ABI
                // wants it, whatever was pending. The image has room for either instruction.
                unsafe {
                    asm!(
                        $load, $store, "fninit",
                        image = in(reg) image.0.as_mut_ptr(),
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                        out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                        options(nostack),
                    );
                }
            }
        };
    }

    #[test]
    fn fxsave_and_fxrstor() {
        type Through = fn(&mut Image);
        let ways: [(bool, Through); 2] = [
            (false, through!("fxrstor [{image}]", "fxsave [{image}]")),
            (true, through!("fxrstor64 [{image}]", "fxsave64 [{image}]")),
        ];
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for (wide, through) in ways {
            for _ in 0..5_000 {
                let mut host = Image([0; 512]);
                for word in host.0.as_chunks_mut().0 {
                    *word = random.next().to_le_bytes();
                }
                if wide {
                    // Canonical addresses.
                    host.0[14..16].fill(0);
                    host.0[22..24].fill(0);
                }
                host.0[24..32].copy_from_slice(&0x1f80u64.to_le_bytes());
                let (start, mut ours) = (host.clone(), host.clone());
                let image = ours.0.first_chunk_mut().unwrap();
                let mut state = State::default();
                state.fxrstor(wide, image);
                state.fxsave(wide, image);
                through(&mut host);
                if ours.0[..24] != host.0[..24] {
                    // A switch to another process and back loses selectors, so what is wrong must be wrong twice.
                    host = start;
                    through(&mut host);
                }
                // AMD's processors give the pointers only while an exception is pending, Intel's and we always. Behind them
                // lie MXCSR and its mask.
                let known = if state.pending() { 24 } else { 6 };
                assert_eq!(ours.0[..known], host.0[..known], "wide {wide}");
                assert_eq!(ours.0[32..160], host.0[32..160], "wide {wide}");
            }
        }
    }
}
