//! Several processors against each other, round after round until the time given is over
//! ([`crate::Rom::build_for`]).
//!
//! A round is work without any synchronisation but that under test, a barrier, and checks by every processor. A hang
//! is a failure too; it is for the runner to notice.
//!
//! Everything runs in 64-bit mode at level 0; the lowest 4 GiB are mapped as they are. Registers of a guest: `r15`
//! processor, `r14` arrivals at barriers so far, `r13` random numbers, `r12` number of the round, `rbp` number of the
//! running case, `rsp` a stack of the processor's own; the framework clobbers `rax`, `rcx` and `rdx`. All others belong
//! to the cases.
//!
//! Manual: *Intel 64 and IA-32 Architectures Software Developer's Manual* (SDM).

pub(super) mod forms;
pub(super) mod ipi;
pub(super) mod litmus;
pub(super) mod locks;
pub(super) mod remote;
pub(super) mod start;
pub(super) mod tear;

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use self::start::entry;
use super::image;
use crate::Cases;

/// Assembling fails only by a mistake in a guest's source.
pub(crate) type Assembled = Result<(), IcedError>;

/// Default duration in milliseconds: short, since every run of all ROMs runs these too.
const MILLISECONDS: u64 = 5;

/// Where the file is loaded: the header, 32-bit code, then 64-bit code at [`TEXT`].
pub(super) const IMAGE: u64 = 0x10_0000;
pub(super) const TEXT: u64 = IMAGE + 0x1000;
/// Where the other processors start, in real mode; the vector of the start-up message is its page.
const TRAMPOLINE: u64 = 0x8000;
/// The descriptors of all processors, where code in real mode reaches them, and the operand of LGDT.
const GDT: u64 = 0x7f00;
const GDTR: u64 = GDT + 24;
/// PML4, page-directory-pointer table, four page directories, then those of [`WINDOW`].
const TABLES: u64 = 0x20_0000;
const IDT: u64 = 0x21_0000;
const STACKS: u64 = 0x22_0000;
const STACK: u64 = 0x4000;
/// Variables of the framework, each in a line of its own.
const STARTED: u64 = 0x24_0000;
const BARRIER: u64 = STARTED + 0x40;
const GO_ON: u64 = STARTED + 0x80;
const END: u64 = STARTED + 0xc0;
/// Where a processor goes that starts once more.
const RESTART: u64 = STARTED + 0x100;
const COUNTS: u64 = STARTED + 0x140;
/// The APIC IDs of the processors.
const APIC_IDS: u64 = STARTED + 0x180;
/// Where the variables of the guests begin.
const SHARED: u64 = 0x28_0000;
/// A region of pages whose table entries belong to the guests: [`WINDOW_TABLE`].
const WINDOW: u64 = 4 << 30;
const WINDOW_TABLE: u64 = TABLES + 0x7000;
/// Memory for it.
const FRAMES: u64 = 0x60_0000;

const PRESENT_WRITABLE: u64 = 3;
const LAPIC: u64 = 0xfee0_0000;
/// Offsets of the local APIC's registers (SDM vol. 3, 12.4.1).
mod lapic {
    pub(super) const ID: u64 = 0x20;
    pub(super) const EOI: u64 = 0xb0;
    pub(super) const LDR: u64 = 0xd0;
    pub(super) const DFR: u64 = 0xe0;
    pub(super) const SPURIOUS: u64 = 0xf0;
    pub(super) const ICR: u64 = 0x300;
    pub(super) const ICR_HIGH: u64 = 0x310;
}
/// Interrupt command (SDM vol. 3, 12.6.1): level asserted; to all but the sender; INIT, start-up.
const ASSERT: u32 = 1 << 14;
const OTHERS: u32 = 3 << 18 | ASSERT;
const INIT: u32 = 5 << 8;
const STARTUP: u32 = 6 << 8;
/// CPUID.1:ECX: PCID, XSAVE, AVX.
const PCID: i32 = 1 << 17;
const XSAVE_AVX: i32 = 1 << 26 | 1 << 28;

const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u32 = 16;
/// CR4: PAE, OSFXSR, OSXMMEXCPT.
const CR4: u32 = 0x620;
/// EFER: LME, NXE.
const EFER: u32 = 0x900;
/// CR0: PG, WP, NE, ET, MP, PE.
const CR0: u32 = 0x8001_0033;

/// A guest under construction.
pub(crate) struct Suite {
    a: CodeAssembler,
    cases: Vec<Cases>,
    fail: CodeLabel,
    begin: CodeLabel,
    milliseconds: u64,
}

impl Suite {
    /// The file and the case names of the guest that `define` writes.
    ///
    /// # Panics
    /// When the guest was assembled wrongly: a bug in its source, which every build of it shows.
    pub(crate) fn assemble(
        milliseconds: Option<u64>,
        define: fn(&mut Suite) -> Assembled,
    ) -> (Vec<u8>, Vec<Cases>) {
        let result = Self::try_assemble(milliseconds.unwrap_or(MILLISECONDS), define);
        result.unwrap_or_else(|error| panic!("the guest's source is wrong: {error}"))
    }

    fn try_assemble(
        milliseconds: u64,
        define: fn(&mut Suite) -> Assembled,
    ) -> Result<(Vec<u8>, Vec<Cases>), IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let (fail, begin) = (a.create_label(), a.create_label());
        a.jmp(begin)?;
        let mut s = Suite { a, cases: Vec::new(), fail, begin, milliseconds };
        s.report_failure()?;
        define(&mut s)?;
        let code = s.a.assemble(TEXT)?;
        let mut bytes = image::multiboot_header();
        bytes.extend(entry(IMAGE + image::HEADER)?);
        assert!(bytes.len() as u64 <= TEXT - IMAGE, "the 32-bit code is too long");
        bytes.resize((TEXT - IMAGE) as usize, 0x90);
        bytes.extend(code);
        assert!(bytes.len() as u64 <= TABLES - IMAGE, "the guest is too long");
        Ok((image::write((IMAGE + image::HEADER) as u32, IMAGE as u32, &bytes), s.cases))
    }

    fn report_failure(&mut self) -> Assembled {
        let (mut fail, mut rest) = (self.fail, self.a.create_label());
        let a = &mut self.a;
        a.set_label(&mut fail)?;
        a.mov(eax, ebp)?;
        a.out(0xf4, eax)?;
        a.set_label(&mut rest)?;
        a.cli()?;
        a.hlt()?;
        a.jmp(rest)?;
        self.fail = fail;
        Ok(())
    }

    // ---- assembling ----

    fn label(&mut self) -> CodeLabel {
        self.a.create_label()
    }

    /// Places a label here; several may lie in one place.
    fn place(&mut self, label: &mut CodeLabel) -> Assembled {
        self.a.set_label(label)?;
        self.a.zero_bytes()
    }

    /// Starts a case.
    fn case(&mut self, name: &str) -> Assembled {
        let first = self.cases.len() as u32 + 1;
        self.cases.push(Cases { first, count: 1, name: name.to_owned() });
        self.a.mov(ebp, first)
    }

    /// Fails the case unless two registers are equal.
    fn check_eq(&mut self, x: AsmRegister64, y: AsmRegister64) -> Assembled {
        let fail = self.fail;
        self.a.cmp(x, y)?;
        self.a.jne(fail)
    }

    /// Fails the case unless the register, not rdx, holds `want`.
    fn check(&mut self, x: AsmRegister64, want: u64) -> Assembled {
        self.a.mov(rdx, want)?;
        self.check_eq(x, rdx)
    }

    // ---- processors ----

    /// Finds out when the time will be over, in ticks of the TSC, whose frequency CPUID.15H tells (SDM vol. 2); if not,
    /// the PIT does.
    fn set_end(&mut self) -> Assembled {
        let (mut measure, mut known) = (self.label(), self.label());
        self.a.xor(eax, eax)?;
        self.a.cpuid()?;
        self.a.cmp(eax, 0x15)?;
        self.a.jb(measure)?;
        self.a.mov(eax, 0x15)?;
        self.a.xor(ecx, ecx)?;
        self.a.cpuid()?;
        self.a.mov(r9d, eax)?;
        self.a.mov(eax, ecx)?;
        self.a.mul(rbx)?;
        self.a.test(r9, r9)?;
        self.a.je(measure)?;
        self.a.div(r9)?;
        // Ticks in 10 ms.
        self.a.mov(ecx, 100)?;
        self.a.xor(edx, edx)?;
        self.a.div(rcx)?;
        self.a.mov(r10, rax)?;
        self.a.test(rax, rax)?;
        self.a.jne(known)?;
        self.place(&mut measure)?;
        self.measure_tsc()?;
        self.place(&mut known)?;
        self.a.mov(rax, r10)?;
        self.a.mov(rcx, self.milliseconds)?;
        self.a.mul(rcx)?;
        self.a.mov(ecx, 10)?;
        self.a.div(rcx)?;
        self.a.mov(r9, rax)?;
        self.tsc()?;
        self.a.add(rax, r9)?;
        self.a.mov(qword_ptr(END), rax)
    }

    /// r10 = ticks of the TSC in 10 ms of counter 2 of the PIT, at 1,193,182 Hz: the least of some measurements, which
    /// may all be too long.
    fn measure_tsc(&mut self) -> Assembled {
        const TICKS: u32 = 11_932;
        self.a.mov(r10, u64::MAX)?;
        self.repeat(r9, 4, |s| {
            let (mut wait, mut longer) = (s.label(), s.label());
            s.a.in_(al, 0x61)?;
            s.a.and(al, 0xfc)?;
            s.a.or(al, 1)?;
            s.a.out(0x61, al)?;
            for (port, value) in [(0x43u32, 0xb0), (0x42, TICKS & 0xff), (0x42, TICKS >> 8)] {
                s.a.mov(al, value)?;
                s.a.out(port, al)?;
            }
            s.tsc()?;
            s.a.mov(r8, rax)?;
            s.place(&mut wait)?;
            s.a.in_(al, 0x61)?;
            s.a.test(al, 0x20)?;
            s.a.je(wait)?;
            s.tsc()?;
            s.a.sub(rax, r8)?;
            s.a.cmp(rax, r10)?;
            s.a.jae(longer)?;
            s.a.mov(r10, rax)?;
            s.place(&mut longer)
        })
    }

    /// The time-stamp counter in rax.
    fn tsc(&mut self) -> Assembled {
        self.a.rdtsc()?;
        self.a.shl(rdx, 32)?;
        self.a.or(rax, rdx)
    }

    /// All processors wait for each other.
    fn barrier(&mut self, harts: u64) -> Assembled {
        let (mut wait, mut over) = (self.label(), self.label());
        self.a.add(r14, harts as i32)?;
        self.a.lock().inc(qword_ptr(BARRIER))?;
        self.place(&mut wait)?;
        self.a.cmp(qword_ptr(BARRIER), r14)?;
        self.a.jae(over)?;
        self.a.pause()?;
        self.a.jmp(wait)?;
        self.place(&mut over)
    }

    /// Runs rounds until the first processor finds that the time is over.
    fn rounds(&mut self, harts: u64, body: impl FnOnce(&mut Self) -> Assembled) -> Assembled {
        let (mut again, mut decided) = (self.label(), self.label());
        self.place(&mut again)?;
        body(self)?;
        self.barrier(harts)?;
        self.a.test(r15d, r15d)?;
        self.a.jne(decided)?;
        self.tsc()?;
        self.a.xor(ecx, ecx)?;
        self.a.cmp(rax, qword_ptr(END))?;
        self.a.setb(cl)?;
        self.a.mov(qword_ptr(GO_ON), rcx)?;
        self.place(&mut decided)?;
        self.barrier(harts)?;
        self.a.inc(r12)?;
        self.a.cmp(qword_ptr(GO_ON), 0)?;
        self.a.jne(again)
    }

    /// The first processor prints the number of rounds and the counts, and reports that all is well; the others rest.
    fn end(&mut self) -> Assembled {
        let (mut first, mut rest) = (self.label(), self.label());
        self.a.test(r15d, r15d)?;
        self.a.je(first)?;
        self.place(&mut rest)?;
        self.a.cli()?;
        self.a.hlt()?;
        self.a.jmp(rest)?;
        self.place(&mut first)?;
        self.a.mov(qword_ptr(COUNTS), r12)?;
        self.a.mov(esi, COUNTS as u32)?;
        let (mut number, mut digit, mut figure) = (self.label(), self.label(), self.label());
        self.place(&mut number)?;
        self.a.mov(rbx, qword_ptr(rsi))?;
        self.a.mov(ecx, 16)?;
        self.place(&mut digit)?;
        self.a.rol(rbx, 4)?;
        self.a.mov(eax, ebx)?;
        self.a.and(eax, 15)?;
        self.a.add(eax, i32::from(b'0'))?;
        self.a.cmp(eax, i32::from(b'9'))?;
        self.a.jbe(figure)?;
        self.a.add(eax, i32::from(b'a' - b'9') - 1)?;
        self.place(&mut figure)?;
        self.a.out(0xe9, al)?;
        self.a.dec(ecx)?;
        self.a.jne(digit)?;
        self.a.mov(al, i32::from(b'\n'))?;
        self.a.out(0xe9, al)?;
        self.a.add(rsi, 8)?;
        self.a.cmp(rsi, (COUNTS + 0x40) as i32)?;
        self.a.jne(number)?;
        self.a.xor(ebp, ebp)?;
        let fail = self.fail;
        self.a.jmp(fail)
    }

    /// The next random number (xorshift64, G. Marsaglia 2003) into r13 and rax.
    fn random(&mut self) -> Assembled {
        for (left, by) in [(true, 13u32), (false, 7), (true, 17)] {
            self.a.mov(rax, r13)?;
            if left {
                self.a.shl(rax, by)?;
            } else {
                self.a.shr(rax, by)?;
            }
            self.a.xor(r13, rax)?;
        }
        self.a.mov(rax, r13)
    }

    /// `body` for every value of `counter` from `n` down to 1.
    fn repeat(
        &mut self,
        counter: AsmRegister64,
        n: u64,
        body: impl FnOnce(&mut Self) -> Assembled,
    ) -> Assembled {
        let mut again = self.label();
        self.a.mov(counter, n)?;
        self.place(&mut again)?;
        body(self)?;
        self.a.dec(counter)?;
        self.a.jne(again)
    }

    /// `body` on the first processor alone, and a barrier.
    fn first(&mut self, harts: u64, body: impl FnOnce(&mut Self) -> Assembled) -> Assembled {
        let mut others = self.label();
        self.a.test(r15d, r15d)?;
        self.a.jne(others)?;
        body(self)?;
        self.place(&mut others)?;
        self.barrier(harts)
    }

    /// Adds 1 to one of the counts that are printed; count 0 is the number of rounds.
    fn count(&mut self, index: u64) -> Assembled {
        self.a.lock().inc(qword_ptr(COUNTS + 8 * index))
    }

    /// A handler of interrupts that keeps all registers but those of `body`, which may use rax, rcx and rdx. To be
    /// placed before [`start`](Self::start).
    fn handler(
        &mut self,
        eoi: bool,
        body: impl FnOnce(&mut Self) -> Assembled,
    ) -> Result<CodeLabel, IcedError> {
        let mut entry = self.label();
        self.place(&mut entry)?;
        self.a.push(rax)?;
        self.a.push(rcx)?;
        self.a.push(rdx)?;
        body(self)?;
        if eoi {
            self.a.mov(edx, LAPIC as u32)?;
            self.a.mov(dword_ptr(rdx + lapic::EOI), 0)?;
        }
        self.a.pop(rdx)?;
        self.a.pop(rcx)?;
        self.a.pop(rax)?;
        self.a.iretq()?;
        Ok(entry)
    }
}
