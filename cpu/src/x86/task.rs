//! Task switches (SDM vol. 3, chapter 9 "Task management"; vol. 2, "IRET"). There are none in IA-32e mode.

use super::core::Core;
use super::fault::{Fault, Stop, vector};
use super::flags::bit;
use super::seg::{Descriptor, is_null, system};
use super::state::{Segment, cr0, rights, sreg};

/// What switches to another task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// JMP to a TSS or a task gate.
    Jump,
    /// CALL.
    Call,
    /// An exception or interrupt through a task gate, with its error code and the EXT bit of the switch's own.
    Event(Option<u32>, u32),
    /// IRET with NT set.
    Return,
}

impl Switch {
    fn nests(self) -> bool {
        matches!(self, Switch::Call | Switch::Event(..))
    }

    fn ext(self) -> u32 {
        match self {
            Switch::Event(_, ext) => ext,
            _ => 0,
        }
    }
}

/// The bit of a TSS descriptor's type that tells that it is busy.
const BUSY: u32 = 2;
/// DR6: the task's T flag is set.
const DR6_BT: u64 = 1 << 15;
/// DR7: breakpoints of one task alone, L0 to L3 and LE.
const DR7_LOCAL: u64 = 0x155;
/// Flags that a TSS can load.
const FLAGS: u64 = 0x3f_7fd5;

/// Offsets into a TSS (SDM vol. 3, figures 9-2 and 9-10).
struct Layout {
    wide: bool,
    /// Bytes of a field, and its place, from the instruction pointer on: IP, flags, the general-purpose registers.
    word: u64,
    ip: u64,
    segments: u64,
    ldt: u64,
    /// Its smallest limit.
    limit: u32,
    /// The last byte of what is saved of a task.
    saved: u32,
}

const TSS16: Layout =
    Layout { wide: false, word: 2, ip: 14, segments: 34, ldt: 42, limit: 43, saved: 41 };
const TSS32: Layout =
    Layout { wide: true, word: 4, ip: 32, segments: 72, ldt: 96, limit: 103, saved: 95 };
/// Where CR3 and the T flag are in a TSS of 32 bits.
const CR3: u64 = 28;
const T: u64 = 100;

fn layout(rights: u32) -> &'static Layout {
    if rights & 8 != 0 { &TSS32 } else { &TSS16 }
}

/// What a task is restored from.
struct Image {
    cr3: u64,
    ip: u64,
    flags: u64,
    gpr: [u64; 8],
    /// ES, CS, SS, DS, FS, GS.
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Core {
    /// An exception that names a selector, with EXT.
    #[cold]
    fn task_fault(&mut self, vector: u8, selector: u16, ext: u32) -> Stop {
        self.raise(Fault::with(vector, u32::from(selector & !3) | ext))
    }

    /// JMP or CALL to the TSS or task gate that `selector` names, which is `descriptor`.
    ///
    /// # Errors
    /// Exceptions of the switch.
    pub(super) fn jump_to_task(
        &mut self,
        selector: u16,
        descriptor: Descriptor,
        switch: Switch,
    ) -> Result<(), Stop> {
        if descriptor.dpl() < self.cpu.cpl.max(selector as u8 & 3) {
            return Err(self.selector_fault(vector::GP, selector));
        }
        if descriptor.system() != Some(system::TASK) {
            return self.switch_task(selector, switch);
        }
        if !descriptor.has(rights::P) {
            return Err(self.selector_fault(vector::NP, selector));
        }
        self.switch_task(descriptor.gate_selector(), switch)
    }

    /// IRET to the task before.
    ///
    /// # Errors
    /// Exceptions of the switch.
    pub(super) fn return_to_task(&mut self) -> Result<(), Stop> {
        let link = self.load_system(self.cpu.tr.base)?;
        self.cpu.nmi_blocked = false;
        self.switch_task(link, Switch::Return)
    }

    /// Switches to the task whose TSS `selector` names. [`Core::next_rip`] is where the old one goes on.
    ///
    /// # Errors
    /// Exceptions of the switch. Those of the new task are marked by [`Core::fault_rip`].
    pub(super) fn switch_task(&mut self, selector: u16, switch: Switch) -> Result<(), Stop> {
        let ext = switch.ext();
        let returns = switch == Switch::Return;
        // A return finds the TSS busy, everything else must not.
        let (invalid, busy) = if returns { (vector::TS, BUSY) } else { (vector::GP, 0) };
        let place = if selector & 4 == 0 { self.descriptor_address(selector, 8) } else { None };
        let Some(place) = place.filter(|_| !is_null(selector)) else {
            return Err(self.task_fault(invalid, selector, ext));
        };
        let descriptor = Descriptor(self.load_system(place)?);
        let kind = descriptor.system().map(|kind| kind ^ busy);
        if !matches!(kind, Some(system::TSS16 | system::TSS)) {
            return Err(self.task_fault(invalid, selector, ext));
        }
        if !descriptor.has(rights::P) {
            return Err(self.task_fault(vector::NP, selector, ext));
        }
        let mut tss = descriptor.segment(selector);
        let to = layout(tss.rights);
        if tss.limit < to.limit {
            return Err(self.task_fault(vector::TS, selector, ext));
        }
        // Whatever can fault in the old task's memory does so before anything is changed.
        let old = self.cpu.tr;
        let from = layout(old.rights);
        let old_place = self.descriptor_address(old.selector, 8);
        if old.limit < from.saved {
            return Err(self.task_fault(vector::TS, old.selector, ext));
        }
        self.probe_system(old.base, u64::from(from.saved) + 1)?;
        self.probe_system(tss.base, 2)?;
        self.probe_system(place, 8)?;
        if let Some(place) = old_place {
            self.probe_system(place, 8)?;
        }
        let mut image = self.read_task(tss.base, to)?;
        // Of two processors that switch to one task at the same time, one does (SDM vol. 3, 9.1.2.1).
        let found = self.update_system::<u8>(place + 5, |rights| rights | BUSY as u8)?;
        if !returns && u32::from(found) & BUSY != 0 {
            return Err(self.task_fault(invalid, selector, ext));
        }

        if !switch.nests()
            && let Some(place) = old_place
        {
            self.update_system::<u8>(place + 5, |rights| rights & !BUSY as u8)?;
        }
        self.save_task(old.base, from, returns)?;
        if switch.nests() {
            self.store_system(tss.base, old.selector)?;
            image.flags |= bit::NT;
        }
        tss.rights |= BUSY;
        self.cpu.tr = tss;
        self.cpu.cr0 |= cr0::TS;
        self.cpu.dr[7] &= !DR7_LOCAL;
        self.breakpoints_changed();
        self.poll = true;
        // From here on exceptions are the new task's.
        self.fault_rip = Some(image.ip);
        self.load_task(&image, to, ext)?;
        if let Switch::Event(Some(error), _) = switch {
            self.push_sized(to.word as u8, &[u64::from(error)])?;
        }
        if image.ip > u64::from(self.segment(sreg::CS).limit) {
            return Err(self.gp(0));
        }
        if image.trap {
            self.set_debug_status(DR6_BT);
            return Err(self.raise(Fault::new(vector::DB)));
        }
        self.fault_rip = None;
        Ok(())
    }

    fn load_field(&mut self, lin: u64, to: &Layout) -> Result<u64, Stop> {
        Ok(if to.wide {
            self.load_system::<u32>(lin)?.into()
        } else {
            self.load_system::<u16>(lin)?.into()
        })
    }

    fn read_task(&mut self, base: u64, to: &Layout) -> Result<Image, Stop> {
        let mut registers = [0; 10];
        for (register, at) in registers.iter_mut().zip((to.ip..).step_by(to.word as usize)) {
            *register = self.load_field(base.wrapping_add(at), to)?;
        }
        let [ip, flags, gpr @ ..] = registers;
        // A TSS of 16 bits has neither FS nor GS.
        let mut selectors = [0; 6];
        let count = if to.wide { 6 } else { 4 };
        for (selector, at) in
            selectors[..count].iter_mut().zip((to.segments..).step_by(to.word as usize))
        {
            *selector = self.load_system(base.wrapping_add(at))?;
        }
        let ldt = self.load_system(base.wrapping_add(to.ldt))?;
        let (mut cr3, mut trap) = (0, false);
        if to.wide {
            cr3 = self.load_system::<u32>(base.wrapping_add(CR3))?.into();
            trap = self.load_system::<u8>(base.wrapping_add(T))? & 1 != 0;
        }
        Ok(Image { cr3, ip, flags, gpr, selectors, ldt, trap })
    }

    fn save_task(&mut self, base: u64, from: &Layout, returns: bool) -> Result<(), Stop> {
        let flags = if returns { self.rflags() & !bit::NT } else { self.rflags() };
        let mut registers = [0; 10];
        registers[0] = self.next_rip;
        registers[1] = flags;
        registers[2..].copy_from_slice(&self.regs[..8]);
        for (value, at) in registers.iter().zip((from.ip..).step_by(from.word as usize)) {
            let lin = base.wrapping_add(at);
            if from.wide {
                self.store_system(lin, *value as u32)?;
            } else {
                self.store_system(lin, *value as u16)?;
            }
        }
        let count = if from.wide { 6 } else { 4 };
        let selectors = self.cpu.seg.map(|segment| segment.selector);
        for (selector, at) in
            selectors[..count].iter().zip((from.segments..).step_by(from.word as usize))
        {
            self.store_system(base.wrapping_add(at), *selector)?;
        }
        Ok(())
    }

    fn load_task(&mut self, image: &Image, to: &Layout, ext: u32) -> Result<(), Stop> {
        self.next_rip = image.ip;
        for (number, value) in (0..).zip(image.gpr) {
            // The upper halves that a TSS of 16 bits does not hold are undefined.
            self.set_gpr(number, if to.wide { value } else { 0xffff_0000 | value });
        }
        let v86 = image.flags & bit::VM != 0;
        // Nothing is loaded yet that the new selectors name.
        for (segment, selector) in self.cpu.seg.iter_mut().zip(image.selectors) {
            *segment = Segment::null(selector);
        }
        self.cpu.ldtr = Segment::null(image.ldt);
        self.cpu.cpl = if v86 { 3 } else { image.selectors[usize::from(sreg::CS)] as u8 & 3 };
        self.set_rflags(image.flags & FLAGS | bit::FIXED);
        self.mode_changed();
        if to.wide && self.cpu.cr0 & cr0::PG != 0 {
            self.write_cr3(image.cr3)?;
        }
        self.load_task_ldt(image.ldt, ext)?;
        for number in [sreg::CS, sreg::SS, sreg::DS, sreg::ES, sreg::FS, sreg::GS] {
            let selector = image.selectors[usize::from(number)];
            if v86 {
                self.set_paragraph(number, selector);
            } else {
                self.load_task_segment(number, selector, ext)?;
            }
        }
        Ok(())
    }

    fn load_task_ldt(&mut self, selector: u16, ext: u32) -> Result<(), Stop> {
        if is_null(selector) {
            return Ok(());
        }
        let place = if selector & 4 == 0 { self.descriptor_address(selector, 8) } else { None };
        let Some(place) = place else { return Err(self.task_fault(vector::TS, selector, ext)) };
        let descriptor = Descriptor(self.load_system(place)?);
        if descriptor.system() != Some(system::LDT) || !descriptor.has(rights::P) {
            return Err(self.task_fault(vector::TS, selector, ext));
        }
        self.cpu.ldtr = descriptor.segment(selector);
        Ok(())
    }

    /// Loads a segment register of the new task: what MOV reports by #GP is an invalid TSS here.
    fn load_task_segment(&mut self, number: u8, selector: u16, ext: u32) -> Result<(), Stop> {
        let (stack, code) = (number == sreg::SS, number == sreg::CS);
        if is_null(selector) {
            if stack || code {
                return Err(self.task_fault(vector::TS, selector, ext));
            }
            return Ok(());
        }
        let Some(place) = self.descriptor_address(selector, 8) else {
            return Err(self.task_fault(vector::TS, selector, ext));
        };
        let descriptor = Descriptor(self.load_system(place)?);
        let (dpl, rpl, cpl) = (descriptor.dpl(), selector as u8 & 3, self.cpu.cpl);
        let fits = if code {
            let privileged = if descriptor.is_conforming() { dpl <= rpl } else { dpl == rpl };
            descriptor.is_code() && privileged
        } else if stack {
            // An absent stack is told before one of another level (SDM vol. 3, table 9-1, checks 9 to 11).
            descriptor.has(rights::S | rights::WRITABLE)
                && !descriptor.is_code()
                && (dpl == cpl && rpl == cpl || !descriptor.has(rights::P))
        } else {
            let readable = !descriptor.is_code() || descriptor.has(rights::WRITABLE);
            descriptor.has(rights::S)
                && readable
                && (descriptor.is_conforming() || dpl >= cpl.max(rpl))
        };
        if !fits {
            return Err(self.task_fault(vector::TS, selector, ext));
        }
        if !descriptor.has(rights::P) {
            let vector = if stack { vector::SS } else { vector::NP };
            return Err(self.task_fault(vector, selector, ext));
        }
        let descriptor = self.mark_accessed(selector, descriptor)?;
        self.set_segment(number, descriptor.segment(selector));
        Ok(())
    }
}
