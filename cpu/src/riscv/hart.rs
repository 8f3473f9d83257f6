//! The canonical state of a hart: what every engine loads before it runs and stores when it stops.

use serde::{Deserialize, Serialize};

use super::csr::fields::mstatus;
use super::model::CpuModel;
use super::pmp::Pmp;

/// Privilege modes (privileged, 1.2), with their encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// User.
    U = 0,
    /// Supervisor.
    S = 1,
    /// Machine.
    M = 3,
}

impl Mode {
    /// The mode of an encoding; `None` for the reserved one (2).
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Mode> {
        match bits {
            0 => Some(Mode::U),
            1 => Some(Mode::S),
            3 => Some(Mode::M),
            _ => None,
        }
    }

    /// The mode's letter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::U => "U",
            Mode::S => "S",
            Mode::M => "M",
        }
    }
}

/// What LR registered: SC compares memory with the value loaded, so a store that writes the very same
/// value in between goes unnoticed (as it would on an LL/SC machine only by luck; accepted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes: 4 or 8.
    pub bytes: u64,
    /// The value loaded, zero-extended.
    pub value: u64,
}

/// A counter that follows the hart's retired instructions unless inhibited (`mcycle`, `minstret`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Added (wrapping) to the retired count when running; the value itself when inhibited.
    pub offset: u64,
    /// Stopped by `mcountinhibit`.
    pub inhibited: bool,
}

impl Counter {
    /// The counter's value when `retired` instructions have retired.
    #[must_use]
    pub fn value(self, retired: u64) -> u64 {
        if self.inhibited { self.offset } else { self.offset.wrapping_add(retired) }
    }

    /// Makes the counter read `value` when `retired` instructions have retired.
    pub fn set(&mut self, retired: u64, value: u64) {
        self.offset = if self.inhibited { value } else { value.wrapping_sub(retired) };
    }

    /// Stops or starts the counter without changing its value.
    pub fn inhibit(&mut self, retired: u64, inhibited: bool) {
        let value = self.value(retired);
        self.inhibited = inhibited;
        self.set(retired, value);
    }
}

/// A hart. Field names are the manuals' register names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The registers are documented in the privileged manual, chapters 3 and 10.
pub struct Hart {
    /// What the hart offers, decided when it was made.
    pub model: CpuModel,
    pub hartid: u64,
    pub x: [u64; 32],
    pub f: [u64; 32],
    pub pc: u64,
    pub mode: Mode,
    /// Stopped by WFI (or WRS) until an interrupt is pending.
    pub waiting: bool,
    pub reservation: Option<Reservation>,
    /// Instructions retired since the hart was made.
    pub retired: u64,

    pub fflags: u8,
    pub frm: u8,

    pub mstatus: u64,
    pub medeleg: u64,
    pub mideleg: u64,
    pub mie: u64,
    /// The bits of `mip` that software has set; lines and timers are added when it is read.
    pub mip: u64,
    pub mtvec: u64,
    pub mcounteren: u64,
    pub mcountinhibit: u64,
    pub mscratch: u64,
    pub mepc: u64,
    pub mcause: u64,
    pub mtval: u64,
    pub menvcfg: u64,
    pub mcycle: Counter,
    pub minstret: Counter,
    pub pmp: Pmp,

    pub stvec: u64,
    pub scounteren: u64,
    pub sscratch: u64,
    pub sepc: u64,
    pub scause: u64,
    pub stval: u64,
    pub senvcfg: u64,
    pub satp: u64,
    pub stimecmp: u64,
}

impl Hart {
    /// A hart of the default model in its reset state.
    #[must_use]
    pub fn new(hartid: u64, pc: u64) -> Self {
        Hart::of_model(CpuModel::default(), hartid, pc)
    }

    /// A hart in its reset state (privileged, 3.4), about to execute at `pc`.
    #[must_use]
    pub fn of_model(model: CpuModel, hartid: u64, pc: u64) -> Self {
        Hart {
            model,
            hartid,
            x: [0; 32],
            f: [0; 32],
            pc,
            mode: Mode::M,
            waiting: false,
            reservation: None,
            retired: 0,
            fflags: 0,
            frm: 0,
            mstatus: mstatus::XLEN_64,
            medeleg: 0,
            mideleg: 0,
            mie: 0,
            mip: 0,
            mtvec: 0,
            mcounteren: 0,
            mcountinhibit: 0,
            mscratch: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            menvcfg: model.menvcfg_at_reset(),
            mcycle: Counter::default(),
            minstret: Counter::default(),
            pmp: Pmp::default(),
            stvec: 0,
            scounteren: 0,
            sscratch: 0,
            sepc: 0,
            scause: 0,
            stval: 0,
            senvcfg: 0,
            satp: 0,
            // Far in the future: no supervisor timer interrupt before software asks for one.
            stimecmp: u64::MAX,
        }
    }

    /// Mode whose permissions loads and stores have (privileged, 3.1.6.3, MPRV).
    #[must_use]
    pub fn data_mode(&self) -> Mode {
        if self.mstatus & mstatus::MPRV != 0 {
            Mode::from_bits(self.mstatus >> mstatus::MPP_SHIFT & 3).unwrap_or(Mode::U)
        } else {
            self.mode
        }
    }
}
