//! Small guests that check what an engine must do right besides executing code: ports, registers in memory,
//! interrupts, changes of privilege, and a state that survives changes of the engine. They are made for KVM, whatever
//! kind of KVM it is, and pass on every engine.
//!
//! Each is raw code for an address, entered in 16-bit or 64-bit mode (there the lowest 4 GiB are mapped as they are,
//! for supervisors). It prints on the debug console at port 0xe9, and ends with a word to isa-debug-exit at port 0xf4:
//! 0 = pass, n = check n failed. What is expected is what Intel's SDM says of each instruction and device.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

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
        code: real,
    },
    Guest {
        name: "long",
        title: "64-bit mode: the local APIC in memory and by MSRs, its timer, task priority, messages to itself",
        bits: 64,
        address: 0x10_0000,
        code: long,
    },
    Guest {
        name: "user",
        title: "64-bit user code: integers and SSE, with INT3 and faults as the way back",
        bits: 64,
        address: 0x10_0000,
        code: user,
    },
    Guest {
        name: "privileged",
        title: "64-bit supervisor code that a software KVM cannot perform: x87, SSE, CMPXCHG16B, INT n",
        bits: 64,
        address: 0x10_0000,
        code: privileged,
    },
    Guest {
        name: "survive",
        title: "a state of many registers that is compared over and over: for changes of the engine meanwhile",
        bits: 64,
        address: 0x10_0000,
        code: survive,
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

fn real(a: &mut CodeAssembler) -> Done {
    let (mut fail, mut behind_text, mut behind_tick) =
        (a.create_label(), a.create_label(), a.create_label());
    let message = b"real\n";
    a.cli()?;
    a.cld()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7000)?;
    // A string to a port.
    a.call(behind_text)?;
    a.db(message)?;
    a.set_label(&mut behind_text)?;
    a.pop(si)?;
    a.mov(cx, message.len() as i32)?;
    a.mov(dx, DEBUG_CONSOLE)?;
    a.rep().outsb()?;
    // A port that reads back what was written: pc-testdev's, in words and double words.
    a.mov(dx, 0xe0)?;
    a.mov(eax, 0x1234_5678)?;
    a.out(dx, eax)?;
    a.xor(eax, eax)?;
    a.in_(eax, dx)?;
    check16(a, 1, |a| a.cmp(eax, 0x1234_5678), fail)?;
    a.mov(ax, 0x7abc)?;
    a.out(dx, ax)?;
    a.xor(ax, ax)?;
    a.in_(ax, dx)?;
    check16(a, 2, |a| a.cmp(ax, 0x7abc), fail)?;
    // Segments are paragraphs.
    a.mov(ax, 0x60)?;
    a.mov(es, ax)?;
    a.mov(word_ptr(0x10).es(), 0x5a5a)?;
    check16(a, 3, |a| a.cmp(word_ptr(0x610), 0x5a5a), fail)?;
    // IRQ 0: count, end of interrupt (8259A, OCW2).
    a.call(behind_tick)?;
    a.push(ax)?;
    a.inc(word_ptr(0x500))?;
    a.mov(al, 0x20)?;
    a.out(0x20, al)?;
    a.pop(ax)?;
    a.iret()?;
    a.set_label(&mut behind_tick)?;
    a.pop(word_ptr(4 * 0x20))?;
    a.mov(word_ptr(4 * 0x20 + 2), 0)?;
    a.mov(word_ptr(0x500), 0)?;
    // The PIC's vectors from 0x20 on, IRQ 0 alone; the PIT counts 1193 for each interrupt (1 ms).
    let commands: [(i32, u32); 8] = [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfe),
        (0x43, 0x34),
        (0x40, 0xa9),
        (0x40, 4),
    ];
    for (port, value) in commands {
        a.mov(al, value)?;
        a.out(port, al)?;
    }
    let mut wait = a.create_label();
    a.set_label(&mut wait)?;
    a.sti()?;
    a.hlt()?;
    a.cli()?;
    a.cmp(word_ptr(0x500), TICKS as i32)?;
    a.jb(wait)?;
    a.mov(al, 0xff)?;
    a.out(0x21, al)?;
    a.xor(eax, eax)?;
    a.set_label(&mut fail)?;
    a.out(DEBUG_EXIT as i32, eax)?;
    a.cli()?;
    a.hlt()
}

/// Ends with `number` in EAX at `fail` unless `compare` finds equality.
fn check16(
    a: &mut CodeAssembler,
    number: u32,
    compare: impl FnOnce(&mut CodeAssembler) -> Done,
    fail: CodeLabel,
) -> Done {
    compare(a)?;
    a.mov(eax, number)?;
    a.jne(fail)
}

// 64-bit guests: where they have what.
const GDT: u64 = 0x20_0000;
const IDT: u64 = 0x20_1000;
const TSS: u64 = 0x20_2000;
const KERNEL_STACK: u64 = 0x21_0000;
/// Where the processor begins when it comes from user code.
const ENTRY_STACK: u64 = 0x20_8000;
const USER_STACK: u64 = 0x22_0000;
const DATA: u64 = 0x23_0000;
/// RSP of the supervisor while user code runs.
const SAVED_RSP: u64 = DATA + 0x800;
/// What handlers count.
const COUNT: u64 = DATA + 0x808;
/// The vector of the last fault of user code.
const FAULT: u64 = DATA + 0x810;
/// What [`survive`] keeps of its TSC.
const LAST_TSC: u64 = DATA + 0x818;
const ROUNDS: u64 = DATA + 0x820;

const KERNEL_CODE: u32 = 0x08;
const KERNEL_DATA: u32 = 0x10;
const USER_DATA: u32 = 0x1b;
const USER_CODE: u32 = 0x23;
const TASK: u32 = 0x28;

const TIMER: u32 = 0x40;
const SELF: u32 = 0x50;
const APIC: u64 = 0xfee0_0000;

/// A 64-bit guest: descriptor tables, a way to user code and back, handlers.
struct Long<'a> {
    a: &'a mut CodeAssembler,
    fail: CodeLabel,
    checks: u32,
}

impl<'a> Long<'a> {
    /// Sets up segments, TSS, IDT, and pages that user code may access up to 16 MiB. INT3 and faults come back from
    /// user code to whoever called [`Long::user`]; faults of the supervisor end with 0x100 + vector.
    fn begin(a: &'a mut CodeAssembler) -> Result<Self, IcedError> {
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
    fn equal(&mut self) -> Done {
        self.checks += 1;
        let mut good = self.a.create_label();
        self.a.je(good)?;
        self.a.mov(eax, self.checks)?;
        self.a.jmp(self.fail)?;
        self.a.set_label(&mut good)
    }

    /// Goes on only if a register has a value.
    fn is(&mut self, register: AsmRegister64, value: u64) -> Done {
        let other = if register == r15 { r14 } else { r15 };
        self.a.mov(other, value)?;
        self.a.cmp(register, other)?;
        self.equal()
    }

    /// Runs user code. Afterwards the supervisor goes on, and [`FAULT`] holds the vector that ended the user code.
    fn user(&mut self, code: impl FnOnce(&mut CodeAssembler) -> Done) -> Done {
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
    fn ended_by(&mut self, vector: u32) -> Done {
        let mut good = self.a.create_label();
        self.a.mov(r15, qword_ptr(FAULT))?;
        self.a.cmp(r15, vector as i32)?;
        self.a.je(good)?;
        self.a.lea(eax, dword_ptr(r15 + 0x200))?;
        self.a.jmp(self.fail)?;
        self.a.set_label(&mut good)
    }

    /// Waits with interrupts on until [`COUNT`] is `count`.
    fn wait_for(&mut self, count: u64) -> Done {
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
    fn wrmsr(&mut self, msr: u32, value: u64) -> Done {
        self.a.mov(ecx, msr)?;
        self.a.mov(eax, value as u32)?;
        self.a.mov(edx, (value >> 32) as u32)?;
        self.a.wrmsr()
    }

    /// Writes a register of the local APIC's page.
    fn apic(&mut self, offset: u64, value: u32) -> Done {
        self.a.mov(ecx, (APIC + offset) as u32)?;
        self.a.mov(dword_ptr(rcx), value)
    }

    /// Prints.
    fn print(&mut self, text: &str) -> Done {
        for byte in text.bytes() {
            self.a.mov(al, u32::from(byte))?;
            self.a.out(DEBUG_CONSOLE, al)?;
        }
        Ok(())
    }

    /// Ends: all was right.
    fn pass(&mut self) -> Done {
        self.a.xor(eax, eax)?;
        self.a.jmp(self.fail)
    }
}

fn long(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("long\n")?;
    // SDM vol. 3, table 11-1: the version register; 0x14 is an APIC in the processor.
    g.a.mov(ecx, (APIC + 0x30) as u32)?;
    g.a.movzx(eax, byte_ptr(rcx))?;
    g.is(rax, 0x14)?;
    // Software enable with spurious vector 0xff; the timer once, by 1, after 100 us (1 GHz).
    g.apic(0xf0, 0x1ff)?;
    g.apic(0x3e0, 0xb)?;
    g.apic(0x320, TIMER)?;
    g.apic(0x380, 100_000)?;
    g.wait_for(1)?;
    // Periodic.
    g.apic(0x320, TIMER | 1 << 17)?;
    g.apic(0x380, 200_000)?;
    g.wait_for(TICKS)?;
    g.apic(0x320, 1 << 16)?;
    g.a.mov(qword_ptr(COUNT), 0)?;
    // A message to itself (shorthand 1) is held back by the task priority, and comes once that falls.
    g.a.mov(eax, 5)?;
    g.a.mov(cr8, rax)?;
    g.apic(0x300, 1 << 18 | SELF)?;
    g.a.sti()?;
    g.a.nop()?;
    g.a.nop()?;
    g.a.cmp(qword_ptr(COUNT), 0)?;
    g.equal()?;
    g.a.mov(ecx, (APIC + 0x80) as u32)?;
    g.a.mov(eax, dword_ptr(rcx))?;
    g.is(rax, 0x50)?;
    g.a.mov(eax, 4)?;
    g.a.mov(cr8, rax)?;
    // A KVM that emulates MOV to CR8 tells nobody; an access to a port leaves the guest in any case.
    g.a.in_(al, 0x80)?;
    g.a.nop()?;
    g.a.cli()?;
    g.a.cmp(qword_ptr(COUNT), 1)?;
    g.equal()?;
    g.a.mov(rax, cr8)?;
    g.is(rax, 4)?;
    g.a.xor(eax, eax)?;
    g.a.mov(cr8, rax)?;
    g.a.mov(qword_ptr(COUNT), 0)?;
    // x2APIC mode: the same by MSRs, and the id in 32 bits.
    g.a.mov(ecx, 0x1b)?;
    g.a.rdmsr()?;
    g.a.or(eax, 1 << 10)?;
    g.a.wrmsr()?;
    g.a.mov(ecx, 0x802)?;
    g.a.rdmsr()?;
    g.a.mov(eax, eax)?;
    g.is(rax, 0)?;
    g.wrmsr(0x80f, 0x1ff)?;
    g.wrmsr(0x83f, u64::from(SELF))?;
    g.wait_for(1)?;
    g.wrmsr(0x83e, 0xb)?;
    g.wrmsr(0x832, u64::from(TIMER))?;
    g.wrmsr(0x838, 100_000)?;
    g.wait_for(1)?;
    // By TSC deadline: half a million ticks from now.
    g.wrmsr(0x832, u64::from(TIMER) | 2 << 17)?;
    g.a.rdtsc()?;
    g.a.shl(rdx, 32)?;
    g.a.or(rax, rdx)?;
    g.a.add(rax, 500_000)?;
    g.a.mov(rdx, rax)?;
    g.a.shr(rdx, 32)?;
    g.a.mov(ecx, 0x6e0)?;
    g.a.wrmsr()?;
    g.wait_for(1)?;
    g.a.mov(ecx, 0x6e0)?;
    g.a.rdmsr()?;
    g.a.mov(eax, eax)?;
    g.is(rax, 0)?;
    g.pass()
}

fn user(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("user\n")?;
    // The sum of 1 to a million.
    g.user(|a| {
        let mut next = a.create_label();
        a.xor(ebx, ebx)?;
        a.mov(ecx, 1_000_000)?;
        a.set_label(&mut next)?;
        a.add(rbx, rcx)?;
        a.dec(rcx)?;
        a.jne(next)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    g.is(rbx, 500_000_500_000)?;
    // 1.5 squared ten times over, in SSE: 1.5^1024 overflows, 1.5^512 does not.
    g.user(|a| {
        a.mov(rax, 1.5f64.to_bits())?;
        a.movq(xmm3, rax)?;
        for _ in 0..4 {
            a.mulsd(xmm3, xmm3)?;
        }
        a.movq(rbx, xmm3)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    // 1.5^16 = 43046721 / 65536, exact in a double.
    g.is(rbx, (43_046_721.0f64 / 65_536.0).to_bits())?;
    // Privileged instructions, a supervisor's page, an undefined instruction.
    g.user(CodeAssembler::cli)?;
    g.ended_by(13)?;
    g.user(CodeAssembler::hlt)?;
    g.ended_by(13)?;
    g.user(|a| {
        a.mov(ebx, 0x0200_0000)?;
        a.mov(rax, qword_ptr(rbx))
    })?;
    g.ended_by(14)?;
    g.a.mov(rbx, cr2)?;
    g.is(rbx, 0x0200_0000)?;
    g.user(CodeAssembler::ud2)?;
    g.ended_by(6)?;
    g.user(|a| {
        a.xor(ecx, ecx)?;
        a.mov(eax, 1)?;
        a.xor(edx, edx)?;
        a.div(ecx)
    })?;
    g.ended_by(0)?;
    // Code that writes code.
    g.user(|a| {
        let mut patched = a.create_label();
        a.lea(rdi, ptr(patched))?;
        a.mov(dword_ptr(rdi + 1), 0x1234)?;
        a.set_label(&mut patched)?;
        a.mov(ebx, 0x5678)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    g.is(rbx, 0x1234)?;
    g.pass()
}

fn privileged(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("privileged\n")?;
    // SSE: 3 + 4, and a shuffle.
    g.a.mov(rax, 0x0000_0004_0000_0003u64)?;
    g.a.movq(xmm1, rax)?;
    g.a.pshufd(xmm2, xmm1, 0b0001)?;
    g.a.paddd(xmm1, xmm2)?;
    g.a.movq(rax, xmm1)?;
    g.is(rax, 0x0000_0007_0000_0007)?;
    g.a.cvtsi2sd(xmm0, rax)?;
    g.a.mov(eax, 10)?;
    g.a.cvtsi2sd(xmm0, eax)?;
    g.a.mov(eax, 4)?;
    g.a.cvtsi2sd(xmm4, eax)?;
    g.a.divsd(xmm0, xmm4)?;
    g.a.movq(rax, xmm0)?;
    g.is(rax, 2.5f64.to_bits())?;
    // x87: the square root of 9, and its control word.
    g.a.fninit()?;
    g.a.mov(dword_ptr(DATA), 9)?;
    g.a.fild(dword_ptr(DATA))?;
    g.a.fsqrt()?;
    g.a.fistp(dword_ptr(DATA))?;
    g.a.mov(eax, dword_ptr(DATA))?;
    g.is(rax, 3)?;
    g.a.fnstcw(word_ptr(DATA))?;
    g.a.movzx(eax, word_ptr(DATA))?;
    g.is(rax, 0x37f)?;
    // CMPXCHG16B that finds what it expects.
    for (at, value) in [(DATA, 1u64), (DATA + 8, 2)] {
        g.a.mov(rax, value)?;
        g.a.mov(qword_ptr(at), rax)?;
    }
    g.a.mov(eax, 1)?;
    g.a.mov(edx, 2)?;
    g.a.mov(ebx, 3)?;
    g.a.mov(ecx, 4)?;
    g.a.lock().cmpxchg16b(xmmword_ptr(DATA))?;
    g.equal()?;
    g.a.mov(rax, qword_ptr(DATA + 8))?;
    g.is(rax, 4)?;
    // INT n to a handler that counts and ends an interrupt, of which there is none.
    g.apic(0xf0, 0x1ff)?;
    g.a.int(SELF as i32)?;
    g.a.int(SELF as i32)?;
    g.a.cmp(qword_ptr(COUNT), 2)?;
    g.equal()?;
    g.pass()
}

/// How often [`survive`] compares its state.
const SURVIVE_ROUNDS: u32 = 3_000;

fn survive(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("survive\n")?;
    // What lies in no general-purpose register: MSRs, debug registers, the local APIC and its timer, CR2.
    let msrs: [(u32, u64); 8] = [
        (0xc000_0081, 0x0013_0008_0000_0000), // STAR
        (0xc000_0082, 0xffff_8000_1234_5678), // LSTAR
        (0xc000_0084, 0x0000_0000_0004_7700), // FMASK
        (0xc000_0102, 0x0000_7fff_1111_2222), // KERNEL_GS_BASE
        (0xc000_0100, 0x0000_1111_2222_3333), // FS_BASE
        (0x0000_0174, 0x0000_0000_0000_0008), // SYSENTER_CS
        (0x0000_0176, 0xffff_8000_0bad_cafe), // SYSENTER_EIP
        (0x0000_0277, 0x0007_0406_0007_0106), // PAT
    ];
    for (msr, value) in msrs {
        g.wrmsr(msr, value)?;
    }
    g.a.mov(rax, 0x0012_3450u64)?;
    g.a.mov(dr0, rax)?;
    g.a.mov(eax, 0x77)?;
    g.a.mov(cr2, rax)?;
    g.apic(0xf0, 0x1ff)?;
    g.apic(0x3e0, 0xb)?;
    g.apic(0x320, TIMER | 1 << 17)?;
    g.apic(0x380, 300_000)?;
    g.a.mov(qword_ptr(LAST_TSC), 0)?;
    g.a.mov(qword_ptr(ROUNDS), 0)?;
    g.a.mov(rax, 0x1122_3344_5566_7788u64)?;
    g.a.movq(xmm9, rax)?;
    g.a.mov(dword_ptr(DATA), 0x3f80)?;
    g.a.ldmxcsr(dword_ptr(DATA))?;
    g.a.fninit()?;
    g.a.fldpi()?;
    let mut next = g.a.create_label();
    g.a.set_label(&mut next)?;
    g.a.sti()?;
    // User code: all general-purpose registers, flags, XMM and x87 go through a loop unharmed.
    g.user(|a| {
        let mut spin = a.create_label();
        for (number, register) in
            [rbx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14].iter().enumerate()
        {
            a.mov(*register, 0x0101_0101_0101_0101u64 * (number as u64 + 1))?;
        }
        a.mov(ecx, 20_000)?;
        a.xor(eax, eax)?;
        a.set_label(&mut spin)?;
        a.add(rax, rbx)?;
        a.xor(rax, r14)?;
        a.dec(ecx)?;
        a.jne(spin)?;
        a.stc()?;
        a.movq(r15, xmm9)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    // 0x0c0c...: the twelfth register; an even number of additions of rbx and exclusive ors with r14 is checked below.
    g.is(r14, 0x0c0c_0c0c_0c0c_0c0c)?;
    g.is(rbx, 0x0101_0101_0101_0101)?;
    g.is(rbp, 0x0505_0505_0505_0505)?;
    let mut sum = 0u64;
    for _ in 0..20_000 {
        sum = sum.wrapping_add(0x0101_0101_0101_0101) ^ 0x0c0c_0c0c_0c0c_0c0c;
    }
    g.is(rax, sum)?;
    g.a.movq(rax, xmm9)?;
    g.is(rax, 0x1122_3344_5566_7788)?;
    g.a.stmxcsr(dword_ptr(DATA))?;
    g.a.mov(eax, dword_ptr(DATA))?;
    g.is(rax, 0x3f80)?;
    g.a.fld(st0)?;
    g.a.fstp(tbyte_ptr(DATA))?;
    g.a.mov(rax, qword_ptr(DATA))?;
    // Pi, rounded to 64 bits of significand (SDM vol. 1, 8.3.8).
    g.is(rax, 0xc90f_daa2_2168_c235)?;
    for (msr, value) in msrs {
        g.a.mov(ecx, msr)?;
        g.a.rdmsr()?;
        g.a.shl(rdx, 32)?;
        g.a.or(rax, rdx)?;
        g.is(rax, value)?;
    }
    g.a.mov(rax, dr0)?;
    g.is(rax, 0x0012_3450)?;
    g.a.mov(rax, cr2)?;
    g.is(rax, 0x77)?;
    // Time does not go back.
    g.a.rdtsc()?;
    g.a.shl(rdx, 32)?;
    g.a.or(rax, rdx)?;
    g.a.cmp(rax, qword_ptr(LAST_TSC))?;
    g.a.mov(qword_ptr(LAST_TSC), rax)?;
    g.a.setae(al)?;
    g.a.cmp(al, 1)?;
    g.equal()?;
    g.a.inc(qword_ptr(ROUNDS))?;
    g.a.cmp(qword_ptr(ROUNDS), SURVIVE_ROUNDS as i32)?;
    g.a.jb(next)?;
    // Interrupts came meanwhile: the timer's, every 0.3 ms.
    g.a.cli()?;
    g.a.cmp(qword_ptr(COUNT), 10)?;
    g.a.setae(al)?;
    g.a.cmp(al, 1)?;
    g.equal()?;
    g.pass()
}

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
