//! What a debugger does to a machine. It stops and starts all harts together and works through their
//! engines alone, so that it knows no engine.

use std::sync::Arc;

use mimic_cpu::bus::{PAGE_MASK, PAGE_SIZE, Width};
use mimic_cpu::debug::{DebugEvent, DebugPoints};
use mimic_cpu::riscv::NS_PER_TICK;
use mimic_cpu::riscv::csr::{CsrOp, Outside, num};
use mimic_cpu::riscv::hart::{Hart, Mode};
use mimic_cpu::x86::state::Cpu;

use super::spec::{End, HartView};
use super::{Holder, MachineHandle};
use crate::engine::CpuState;
use crate::loader::Isa;

/// What a hart shall do when the debugger lets the machine go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run until one of the points is reached.
    Run(DebugPoints),
    /// Stand still.
    Stand,
}

/// How a debugger names memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Virtual addresses of this hart, as its mode translates them now. Reaches memory only, so that a
    /// stray pointer cannot disturb a device.
    Virtual(usize),
    /// Guest physical addresses; devices are read and written too.
    Physical,
}

/// What CSRs show of the world outside a hart that stands still.
struct Moment {
    time: u64,
    lines: u64,
}

impl Outside for Moment {
    fn time(&self) -> u64 {
        self.time
    }
    fn lines(&self) -> u64 {
        self.lines
    }
}

impl MachineHandle {
    /// Stops the machine before [`run`](super::Machine::run) starts it.
    pub fn debug_hold_from_start(&self) {
        let mut holders =
            self.shared.holders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        holders.push(Holder::Debugger);
        self.shared.control.set_paused(true);
        self.shared.clock.stop();
    }

    /// Stops the machine for the debugger; on return it stands.
    pub fn debug_stop(&self) {
        self.hold(Holder::Debugger);
    }

    /// Lets the machine go on with an order for each hart. Nothing happens after the end of the run.
    pub fn debug_go(&self, orders: Vec<Order>) {
        let mut frozen = 0;
        for (hart, order) in orders.into_iter().enumerate() {
            match order {
                Order::Run(points) => {
                    self.shared.control.on_hart(hart, move |engine| engine.set_debug(points));
                }
                Order::Stand => frozen |= 1 << hart,
            }
        }
        self.shared.control.freeze(frozen);
        self.release(Holder::Debugger);
    }

    /// Whether harts have stopped by themselves; all stand until [`debug_events`](Self::debug_events) is
    /// called.
    #[must_use]
    pub fn debug_has_events(&self) -> bool {
        self.shared.control.has_debug_events()
    }

    /// The harts that have stopped by themselves since the last call, and why. Call
    /// [`debug_stop`](Self::debug_stop) first, or they go on.
    #[must_use]
    pub fn debug_events(&self) -> Vec<(usize, DebugEvent)> {
        self.shared.control.take_debug_events()
    }

    /// Has `waker` called when a hart stops by itself and when the run ends; `None`: nobody.
    pub fn debug_waker(&self, waker: Option<Arc<dyn Fn() + Send + Sync>>) {
        self.shared.control.set_debugger(waker);
    }

    /// How the run has ended.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.shared.control.take_end()
    }

    /// Number of harts.
    #[must_use]
    pub fn hart_count(&self) -> usize {
        self.shared.control.harts()
    }

    /// The machine's instruction set.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.shared.config.cpu.isa()
    }

    fn state(&self, hart: usize) -> Option<CpuState> {
        self.shared.control.on_hart(hart, |engine| engine.store())
    }

    /// Where a hart is; `None` after the end of the run.
    #[must_use]
    pub fn view(&self, hart: usize) -> Option<HartView> {
        self.shared.control.on_hart(hart, |engine| engine.view())
    }

    /// An x86 processor's state; `None` after the end of the run.
    #[must_use]
    pub fn cpu(&self, hart: usize) -> Option<Cpu> {
        self.state(hart)?.x86()
    }

    /// Changes an x86 processor's state; `None` after the end of the run.
    pub fn change_cpu<R: Send + 'static>(
        &self,
        hart: usize,
        change: impl FnOnce(&mut Cpu) -> R + Send + 'static,
    ) -> Option<R> {
        self.shared.control.on_hart(hart, |engine| {
            let mut state = engine.store().x86()?;
            let result = change(&mut state);
            engine.load(state.into());
            Some(result)
        })?
    }

    /// A RISC-V hart's state; `None` after the end of the run.
    #[must_use]
    pub fn hart(&self, hart: usize) -> Option<Hart> {
        self.state(hart)?.riscv()
    }

    /// Changes a RISC-V hart's state; `None` after the end of the run.
    pub fn change_hart<R: Send + 'static>(
        &self,
        hart: usize,
        change: impl FnOnce(&mut Hart) -> R + Send + 'static,
    ) -> Option<R> {
        self.shared.control.on_hart(hart, |engine| {
            let mut state = engine.store().riscv()?;
            let result = change(&mut state);
            engine.load(state.into());
            Some(result)
        })?
    }

    fn moment(&self, hart: usize) -> Moment {
        let time = self.shared.bus.now() / NS_PER_TICK;
        Moment { time, lines: self.shared.control.signals(hart).lines() }
    }

    /// Reads a CSR of a hart as M-mode would; `None` if there is no such register.
    #[must_use]
    pub fn read_csr(&self, hart: usize, csr: u16) -> Option<u64> {
        let moment = self.moment(hart);
        let mut state = self.hart(hart)?;
        as_machine(&mut state, csr, |state| {
            // No instruction reads here, so none is to be left out of the count.
            state.retired += 1;
            state.csr(CsrOp::Write, csr, None, &moment).ok().map(|(value, _)| value)
        })
    }

    /// Writes a CSR of a hart as M-mode would: illegal values become legal ones. Whether there is such a
    /// register, and it can be written.
    #[must_use]
    pub fn write_csr(&self, hart: usize, csr: u16, value: u64) -> bool {
        let moment = self.moment(hart);
        let written = self.change_hart(hart, move |state| {
            as_machine(state, csr, |state| {
                state.csr(CsrOp::Write, csr, Some(value), &moment).is_ok()
            })
        });
        written == Some(true)
    }

    /// The guest physical address of `va`, and how many bytes up to `len` it holds for.
    fn debug_place(&self, state: Option<&CpuState>, va: u64, len: usize) -> Option<(u64, usize)> {
        let gpa = match state {
            Some(state) => state.peek(&*self.shared.bus, va)?,
            None => va,
        };
        let in_page = PAGE_SIZE - (gpa & PAGE_MASK);
        Some((gpa, len.min(in_page as usize)))
    }

    fn debug_pages(
        &self,
        space: Space,
        addr: u64,
        len: usize,
        mut page: impl FnMut(usize, usize, u64) -> bool,
    ) -> usize {
        let state = match space {
            Space::Virtual(hart) => match self.state(hart) {
                Some(state) => Some(state),
                None => return 0,
            },
            Space::Physical => None,
        };
        let mut done = 0;
        while done < len {
            let va = addr.wrapping_add(done as u64);
            let Some((gpa, part)) = self.debug_place(state.as_ref(), va, len - done) else { break };
            if !page(done, part, gpa) {
                break;
            }
            done += part;
        }
        done
    }

    /// Reads memory without side effects (but see [`Space::Physical`]). How many bytes there are.
    pub fn debug_read(&self, space: Space, addr: u64, bytes: &mut [u8]) -> usize {
        self.debug_pages(space, addr, bytes.len(), |at, len, gpa| {
            let part = &mut bytes[at..at + len];
            if self.shared.memory.read_into(gpa, part).is_ok() {
                return true;
            }
            space == Space::Physical
                && accesses(gpa, len).all(|(offset, width)| {
                    let Ok(value) = self.shared.bus.read(gpa + offset as u64, width) else {
                        return false;
                    };
                    let size = width.bytes() as usize;
                    part[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
                    true
                })
        })
    }

    /// Writes memory, ROM included. How many bytes were written.
    pub fn debug_write(&self, space: Space, addr: u64, bytes: &[u8]) -> usize {
        self.debug_pages(space, addr, bytes.len(), |at, len, gpa| {
            let part = &bytes[at..at + len];
            if self.shared.memory.fill(gpa, part).is_ok() {
                return true;
            }
            space == Space::Physical
                && accesses(gpa, len).all(|(offset, width)| {
                    let size = width.bytes() as usize;
                    let mut value = [0; 8];
                    value[..size].copy_from_slice(&part[offset..offset + size]);
                    let value = u64::from_le_bytes(value);
                    self.shared.bus.write(gpa + offset as u64, width, value).is_ok()
                })
        })
    }
}

/// The aligned accesses that `len` bytes of a device are moved by: one if it can be.
fn accesses(gpa: u64, len: usize) -> impl Iterator<Item = (usize, Width)> {
    let whole = [Width::Double, Width::Word, Width::Half]
        .into_iter()
        .find(|width| len as u64 == width.bytes() && gpa.is_multiple_of(width.bytes()));
    let width = whole.unwrap_or(Width::Byte);
    (0..len).step_by(width.bytes() as usize).map(move |offset| (offset, width))
}

/// Does `f` with the rights of M-mode over `csr`, floating point switched on where that needs it.
fn as_machine<R>(state: &mut Hart, csr: u16, f: impl FnOnce(&mut Hart) -> R) -> R {
    use mimic_cpu::riscv::csr::fields::mstatus::FS;
    let mode = std::mem::replace(&mut state.mode, Mode::M);
    let off = matches!(csr, num::FFLAGS..=num::FCSR) && state.mstatus & FS == 0;
    if off {
        state.mstatus |= FS;
    }
    let result = f(state);
    state.mode = mode;
    if off {
        state.mstatus &= !FS;
    }
    result
}
