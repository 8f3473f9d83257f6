//! What 64-bit guests have in common.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{DEBUG_CONSOLE, DEBUG_EXIT, Done};

// Where they have what.
const GDT: u64 = 0x20_0000;
const IDT: u64 = 0x20_1000;
const TSS: u64 = 0x20_2000;
const KERNEL_STACK: u64 = 0x21_0000;
/// Where the processor begins when it comes from user code.
const ENTRY_STACK: u64 = 0x20_8000;
const USER_STACK: u64 = 0x22_0000;
pub(super) const DATA: u64 = 0x23_0000;
/// RSP of the supervisor while user code runs.
const SAVED_RSP: u64 = DATA + 0x800;
/// What handlers count.
pub(super) const COUNT: u64 = DATA + 0x808;
/// The vector of the last fault of user code.
const FAULT: u64 = DATA + 0x810;

const KERNEL_CODE: u32 = 0x08;
const KERNEL_DATA: u32 = 0x10;
const USER_DATA: u32 = 0x1b;
const USER_CODE: u32 = 0x23;
const TASK: u32 = 0x28;

pub(super) const TIMER: u32 = 0x40;
pub(super) const SELF: u32 = 0x50;
pub(super) const APIC: u64 = 0xfee0_0000;

/// A 64-bit guest: descriptor tables, a way to user code and back, handlers.
pub(super) struct Long<'a> {
    pub(super) a: &'a mut CodeAssembler,
    fail: CodeLabel,
    checks: u32,
}

impl<'a> Long<'a> {
    /// Sets up segments, TSS, IDT, and pages that user code may access up to 16 MiB. INT3 and faults come back from
    /// user code to whoever called [`Long::user`]; faults of the supervisor end with 0x100 + vector.
    pub(super) fn begin(a: &'a mut CodeAssembler) -> Result<Self, IcedError> {
        let mut fail = a.create_label();
        let mut start = a.create_label();
        a.jmp(start)?;
        a.set_label(&mut fail)?;
        a.out(DEBUG_EXIT, eax)?;
        a.cli()?;
        a.hlt()?;
        // Handlers of the exceptions: vector, and on the stack the error code if the processor has pushed none.
        let mut common = a.create_label();
        let mut entries = Vec::new();
        for vector in 0..32u32 {
            let mut entry = a.create_label();
            a.set_label(&mut entry)?;
            // SDM vol. 3, table 7-1.
            if !matches!(vector, 8 | 10..=14 | 17 | 21) {
                a.push(0)?;
            }
            a.push(vector as i32)?;
            a.jmp(common)?;
            entries.push(entry);
        }
        a.set_label(&mut common)?;
        let mut own = a.create_label();
        a.test(byte_ptr(rsp + 24), 3)?;
        a.je(own)?;
        a.pop(qword_ptr(FAULT))?;
        a.mov(rsp, qword_ptr(SAVED_RSP))?;
        a.ret()?;
        a.set_label(&mut own)?;
        a.pop(rax)?;
        a.or(eax, 0x100)?;
        a.jmp(fail)?;
        // The timer's interrupt and that of a message to itself: count; end of interrupt in whatever mode.
        let (mut timer, mut message) = (a.create_label(), a.create_label());
        for label in [&mut timer, &mut message] {
            a.set_label(label)?;
            a.push(rax)?;
            a.push(rcx)?;
            a.push(rdx)?;
            a.inc(qword_ptr(COUNT))?;
            let (mut x2apic, mut done) = (a.create_label(), a.create_label());
            a.mov(ecx, 0x1b)?;
            a.rdmsr()?;
            a.test(eax, 1 << 10)?;
            a.jne(x2apic)?;
            a.mov(ecx, (APIC + 0xb0) as u32)?;
            a.mov(dword_ptr(rcx), 0)?;
            a.jmp(done)?;
            a.set_label(&mut x2apic)?;
            a.mov(ecx, 0x80b)?;
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
            a.set_label(&mut done)?;
            a.pop(rdx)?;
            a.pop(rcx)?;
            a.pop(rax)?;
            a.iretq()?;
        }

        a.set_label(&mut start)?;
        a.cli()?;
        a.mov(rsp, KERNEL_STACK)?;
        // Firmware leaves the PIC open: none of its interrupts.
        a.mov(al, 0xff)?;
        a.out(0x21, al)?;
        a.out(0xa1, al)?;
        // Code and data of both privileges, flat (SDM vol. 3, 3.4.5), and the TSS.
        let descriptors = [
            0u64,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0x0000_8900_0000_0067 | (TSS & 0xff_ffff) << 16,
            0,
        ];
        for (at, descriptor) in (GDT..).step_by(8).zip(descriptors) {
            a.mov(rax, descriptor)?;
            a.mov(qword_ptr(at), rax)?;
        }
        a.mov(rax, ENTRY_STACK)?;
        a.mov(qword_ptr(TSS + 4), rax)?;
        a.mov(word_ptr(TSS + 102), 104)?;
        a.mov(word_ptr(DATA), descriptors.len() as i32 * 8 - 1)?;
        a.mov(rax, GDT)?;
        a.mov(qword_ptr(DATA + 2), rax)?;
        a.lgdt(ptr(DATA))?;
        a.mov(eax, KERNEL_DATA)?;
        a.mov(ss, eax)?;
        a.mov(ds, eax)?;
        a.mov(es, eax)?;
        // IRET to user code would take them away.
        a.xor(eax, eax)?;
        a.mov(fs, eax)?;
        a.mov(gs, eax)?;
        let mut far = a.create_label();
        a.push(KERNEL_CODE as i32)?;
        a.lea(rax, ptr(far))?;
        a.push(rax)?;
        // RETF with 64-bit operands.
        a.db(&[0x48, 0xcb])?;
        a.set_label(&mut far)?;
        a.mov(eax, TASK)?;
        a.ltr(ax)?;
        let gates = entries.into_iter().enumerate().map(|(vector, label)| (vector as u32, label));
        for (vector, label) in gates.chain([(TIMER, timer), (SELF, message)]) {
            let at = IDT + 16 * u64::from(vector);
            a.lea(rax, ptr(label))?;
            a.mov(word_ptr(at), ax)?;
            a.shr(rax, 16)?;
            a.mov(word_ptr(at + 6), ax)?;
            a.shr(rax, 16)?;
            a.mov(qword_ptr(at + 8), rax)?;
            a.mov(word_ptr(at + 2), KERNEL_CODE)?;
            // An interrupt gate; user code may use that of INT3.
            a.mov(word_ptr(at + 4), if vector == 3 { 0xee00 } else { 0x8e00u32 })?;
        }
        a.mov(word_ptr(DATA), 16 * 0x60 - 1)?;
        a.mov(rax, IDT)?;
        a.mov(qword_ptr(DATA + 2), rax)?;
        a.lidt(ptr(DATA))?;
        // User pages: bit 2 of each level's entries.
        a.mov(rbx, cr3)?;
        a.or(qword_ptr(rbx), 4)?;
        a.or(qword_ptr(rbx + 0x1000), 4)?;
        for page in 0..8 {
            a.or(qword_ptr(rbx + (0x2000 + 8 * page)), 4)?;
        }
        a.mov(cr3, rbx)?;
        // SSE (CR4.OSFXSR, OSXMMEXCPT), and CR0.MP for it.
        a.mov(rax, cr4)?;
        a.or(eax, 3 << 9)?;
        a.mov(cr4, rax)?;
        a.mov(rax, cr0)?;
        a.or(eax, 2)?;
        a.mov(cr0, rax)?;
        a.mov(qword_ptr(COUNT), 0)?;
        Ok(Long { a, fail, checks: 0 })
    }

    /// Goes on only if the last comparison found equality.
    pub(super) fn equal(&mut self) -> Done {
        self.checks += 1;
        let mut good = self.a.create_label();
        self.a.je(good)?;
        self.a.mov(eax, self.checks)?;
        self.a.jmp(self.fail)?;
        self.a.set_label(&mut good)
    }

    /// Goes on only if a register has a value.
    pub(super) fn is(&mut self, register: AsmRegister64, value: u64) -> Done {
        let other = if register == r15 { r14 } else { r15 };
        self.a.mov(other, value)?;
        self.a.cmp(register, other)?;
        self.equal()
    }

    /// Runs user code. Afterwards the supervisor goes on, and [`FAULT`] holds the vector that ended the user code.
    pub(super) fn user(&mut self, code: impl FnOnce(&mut CodeAssembler) -> Done) -> Done {
        let (mut enter, mut after, mut begin) =
            (self.a.create_label(), self.a.create_label(), self.a.create_label());
        self.a.call(enter)?;
        self.a.jmp(after)?;
        self.a.set_label(&mut enter)?;
        self.a.mov(qword_ptr(SAVED_RSP), rsp)?;
        self.a.push(USER_DATA as i32)?;
        self.a.push(USER_STACK as i32)?;
        self.a.push(0x202)?;
        self.a.push(USER_CODE as i32)?;
        self.a.lea(r15, ptr(begin))?;
        self.a.push(r15)?;
        self.a.iretq()?;
        self.a.set_label(&mut begin)?;
        code(self.a)?;
        self.a.set_label(&mut after)
    }

    /// Goes on only if this vector ended the user code; ends with 0x200 + the vector if it was another one.
    pub(super) fn ended_by(&mut self, vector: u32) -> Done {
        let mut good = self.a.create_label();
        self.a.mov(r15, qword_ptr(FAULT))?;
        self.a.cmp(r15, vector as i32)?;
        self.a.je(good)?;
        self.a.lea(eax, dword_ptr(r15 + 0x200))?;
        self.a.jmp(self.fail)?;
        self.a.set_label(&mut good)
    }

    /// Waits with interrupts on until [`COUNT`] is `count`.
    pub(super) fn wait_for(&mut self, count: u64) -> Done {
        let (mut wait, mut done) = (self.a.create_label(), self.a.create_label());
        self.a.set_label(&mut wait)?;
        self.a.cli()?;
        self.a.cmp(qword_ptr(COUNT), count as i32)?;
        self.a.jae(done)?;
        self.a.sti()?;
        self.a.hlt()?;
        self.a.jmp(wait)?;
        self.a.set_label(&mut done)?;
        self.a.mov(qword_ptr(COUNT), 0)
    }

    /// Writes an x2APIC register or another MSR.
    pub(super) fn wrmsr(&mut self, msr: u32, value: u64) -> Done {
        self.a.mov(ecx, msr)?;
        self.a.mov(eax, value as u32)?;
        self.a.mov(edx, (value >> 32) as u32)?;
        self.a.wrmsr()
    }

    /// Writes a register of the local APIC's page.
    pub(super) fn apic(&mut self, offset: u64, value: u32) -> Done {
        self.a.mov(ecx, (APIC + offset) as u32)?;
        self.a.mov(dword_ptr(rcx), value)
    }

    /// Prints.
    pub(super) fn print(&mut self, text: &str) -> Done {
        for byte in text.bytes() {
            self.a.mov(al, u32::from(byte))?;
            self.a.out(DEBUG_CONSOLE, al)?;
        }
        Ok(())
    }

    /// Ends: all was right.
    pub(super) fn pass(&mut self) -> Done {
        self.a.xor(eax, eax)?;
        self.a.jmp(self.fail)
    }
}
