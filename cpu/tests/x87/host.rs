//! The two machines: the host's x87 and ours, fed with FNSAVE images.

use mimic_cpu::x86::x87::{Format, State};

/// An FNSAVE image in the protected-mode 32-bit layout, which is what 64-bit code gets.
pub(crate) type Image = [u8; 108];
/// What `[{m}]` names.
pub(crate) type Memory = [u8; 128];
/// CF, PF, AF, ZF, SF, OF.
pub(crate) const FLAGS: u64 = 0x8d5;

/// What an instruction starts from and what it leaves.
#[derive(Clone, PartialEq)]
pub(crate) struct Machine {
    pub(crate) image: Image,
    pub(crate) memory: Memory,
    pub(crate) flags: u64,
}

impl Machine {
    /// Forgets the pointers of the last instruction, which name the test's own code.
    pub(crate) fn without_pointers(mut self) -> Self {
        self.image[12..28].fill(0);
        self
    }

    pub(crate) fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.image[at], self.image[at + 2 - 1]])
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.parts().iter().try_for_each(|part| write!(f, "{part} "))
    }
}

impl Machine {
    /// Everything in words, in a fixed order.
    fn parts(&self) -> Vec<String> {
        let (control, status, tags) = (self.word(0), self.word(4), self.word(8));
        let code = |bit: u16| status >> bit & 1;
        let mut parts = vec![
            format!("control {control:04x}"),
            format!("top {}", status >> 11 & 7),
            format!("C3 {} C2 {} C1 {} C0 {}", code(14), code(10), code(9), code(8)),
            format!("exceptions {:04x}", status & 0x80ff),
            format!("tags {tags:04x}"),
            format!("flags {:03x}", self.flags & FLAGS),
        ];
        let hex = |bytes: &[u8]| bytes.iter().rev().map(|b| format!("{b:02x}")).collect::<String>();
        let registers = self.image[28..].chunks_exact(10).enumerate();
        parts.extend(registers.map(|(i, bytes)| format!("st{i} {}", hex(bytes))));
        parts.push(format!("memory {}", hex(&self.memory)));
        parts
    }

    /// Where this differs from another, in words.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let parts = self.parts().into_iter().zip(other.parts());
        let differ = parts.filter(|(a, b)| a != b).map(|(a, b)| format!("{a}, not {b}"));
        differ.collect::<Vec<_>>().join("; ")
    }
}

/// Runs an instruction natively.
pub(crate) type Native = fn(&mut Machine);
/// Performs it here.
pub(crate) type Soft = fn(&mut State, &mut Machine);

/// Performs an instruction here, through the same images.
pub(crate) fn soft(machine: &mut Machine, perform: Soft) {
    let mut state = State::default();
    state.frstor(Format::Protected32, &machine.image);
    perform(&mut state, machine);
    machine.image = state.save_image(Format::Protected32);
}

/// Defines a [`Native`] for an instruction that may name `[{m}]`.
#[macro_export]
macro_rules! native {
    ($($insn:literal),+) => {{
        fn run(machine: &mut $crate::host::Machine) {
            // SAFETY: x87 state, flags (none of which Rust relies on) and the machine's own bytes change. FRSTOR sees no
            // pending exception; one that the instruction leaves is forgotten by FNSAVE, which does not wait and leaves the
            // unit as the ABI wants it.
            unsafe {
                std::arch::asm!(
                    "push {flags}",
                    "popfq",
                    "frstor [{image}]",
                    $($insn,)+
                    "pushfq",
                    "pop {flags}",
                    "fnsave [{image}]",
                    "/* {m} */",
                    flags = inout(reg) machine.flags,
                    image = in(reg) machine.image.as_mut_ptr(),
                    m = in(reg) machine.memory.as_mut_ptr(),
                    out("rax") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _,
                    out("mm4") _, out("mm5") _, out("mm6") _, out("mm7") _,
                );
            }
            machine.flags &= $crate::host::FLAGS;
        }
        run as $crate::host::Native
    }};
}
