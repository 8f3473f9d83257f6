//! Small guests that check what an engine must do right besides executing code: ports, registers in memory,
//! interrupts, changes of privilege, and a state that survives changes of the engine. They are made for KVM, whatever
//! kind of KVM it is, and pass on every engine.
//!
//! Each is raw code for an address, entered in 16-bit or 64-bit mode (there the lowest 4 GiB are mapped as they are,
//! for supervisors). It prints on the debug console at port 0xe9, and ends with a word to isa-debug-exit at port 0xf4:
//! 0 = pass, n = check n failed. What is expected is what Intel's SDM says of each instruction and device.

mod guests;
mod long;
mod real;
mod survive;

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;

/// A guest.
pub struct Guest {
    /// Its name.
    pub name: &'static str,
    /// One line on what it does.
    pub title: &'static str,
    /// The mode it is entered in: 16 or 64 bits.
    pub bits: u32,
    /// Where it is loaded and entered.
    pub address: u64,
    code: fn(&mut CodeAssembler) -> Result<(), IcedError>,
}

/// All of them.
pub const GUESTS: &[Guest] = &[
    Guest {
        name: "real",
        title: "real mode: ports, strings to ports, the PIT's interrupts through the PIC",
        bits: 16,
        address: 0x7c00,
        code: real::real,
    },
    Guest {
        name: "long",
        title: "64-bit mode: the local APIC in memory and by MSRs, its timer, task priority, messages to itself",
        bits: 64,
        address: 0x10_0000,
        code: guests::long,
    },
    Guest {
        name: "user",
        title: "64-bit user code: integers and SSE, with INT3 and faults as the way back",
        bits: 64,
        address: 0x10_0000,
        code: guests::user,
    },
    Guest {
        name: "privileged",
        title: "64-bit supervisor code that a software KVM cannot perform: x87, SSE, CMPXCHG16B, INT n",
        bits: 64,
        address: 0x10_0000,
        code: guests::privileged,
    },
    Guest {
        name: "vector",
        title: "64-bit AVX and BMI2, in supervisor and user code, where CPUID has them",
        bits: 64,
        address: 0x10_0000,
        code: guests::vector,
    },
    Guest {
        name: "survive",
        title: "a state of many registers that is compared over and over: for changes of the engine meanwhile",
        bits: 64,
        address: 0x10_0000,
        code: survive::survive,
    },
];

impl Guest {
    /// Assembles it.
    pub fn build(&self) -> Vec<u8> {
        let assembled = CodeAssembler::new(self.bits).and_then(|mut a| {
            (self.code)(&mut a)?;
            a.assemble(self.address)
        });
        match assembled {
            Ok(code) => code,
            Err(error) => panic!("{}: {error}", self.name),
        }
    }
}

/// The guest of that name.
pub fn find(name: &str) -> Option<&'static Guest> {
    GUESTS.iter().find(|guest| guest.name == name)
}

type Done = Result<(), IcedError>;

const DEBUG_CONSOLE: u32 = 0xe9;
const DEBUG_EXIT: u32 = 0xf4;
const TICKS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_guests_can_be_assembled() {
        for guest in GUESTS {
            assert!(guest.build().len() > 50, "{}", guest.name);
            assert_eq!(find(guest.name).map(|found| found.title), Some(guest.title));
        }
    }
}
