//! The guest's own code: the loop over the cells, and what notes and compares how each ended.
//!
//! It is the same code for 32 and 64 bits where it uses 32-bit registers and addresses alone.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{Mode, STUB, Table, Word, at, selector};

/// Addresses of the driver's variables.
pub(super) mod variable {
    use super::super::at::VARIABLES;

    /// The record of the cell, and of the next.
    pub(in super::super) const RECORD: u32 = VARIABLES;
    pub(in super::super) const NEXT: u32 = VARIABLES + 4;
    /// The number of the cell, from 0.
    pub(in super::super) const CELL: u32 = VARIABLES + 8;
    /// The case number of the first failure.
    pub(in super::super) const FAILED: u32 = VARIABLES + 12;
    /// Whether everything is to be printed.
    pub(in super::super) const LIST: u32 = VARIABLES + 16;
    /// What the watched words were.
    pub(in super::super) const BEFORE: u32 = VARIABLES + 0x20;
    /// All words of the outcome, and those that are compared.
    pub(in super::super) const OUTCOME: u32 = VARIABLES + 0x80;
    pub(in super::super) const COMPARED: u32 = VARIABLES + 0x100;
}
use variable::*;

/// Offsets in a record.
mod record {
    pub(super) const POKES: u32 = 0;
    pub(super) const STUB: u32 = 4;
    pub(super) const CS: u32 = 8;
    pub(super) const SS: u32 = 12;
    pub(super) const ESP: u32 = 16;
    pub(super) const REGISTERS: u32 = 20;
    pub(super) const END: u32 = 36;
}

/// Vectors that have an entry: exceptions, and the end of a stub.
const VECTORS: u32 = 0x20;
pub(super) const DONE: u32 = 0x80;
/// Bytes of an entry.
const ENTRY: u32 = 16;
/// Exceptions with an error code (SDM vol. 3, table 7-1).
const WITH_ERROR: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21;
/// ZF, IF, NT.
const FLAGS: u32 = 0x4240;
/// Words at each stack's end that are cleared for a cell.
const CLEARED: u32 = 16;
/// CR0: PG, NE, ET, PE; CR4: PAE, LA57.
const CR0: u32 = 0x31;
const CR0_PG: u32 = 1 << 31;
const CR4_PAE: u32 = 0x20;
const CR4_LA57: u32 = 1 << 12;
/// Interrupt masks of the PICs.
const PIC_MASKS: [i32; 2] = [0x21, 0xa1];
/// EFER.LME and NXE.
const MSR_EFER: u32 = 0xc000_0080;
const EFER: u32 = 0x900;
const EFER_NXE: u32 = 0x800;

pub(super) struct Driver<'a> {
    pub(super) table: &'a Table,
    /// Addresses of the cells' outcomes, of those that are known, and of the first cell's record.
    pub(super) indices: u32,
    pub(super) known: u32,
    pub(super) cells: u32,
}

type Code = Result<Vec<u8>, IcedError>;

/// The address of a word of the outcome.
fn outcome(word: Word) -> u32 {
    OUTCOME + 4 * word as u32
}

/// What is in the descriptor of a code or data segment with limit 4 GiB (SDM vol. 3, 3.4.5).
fn flat(access: u64, flags: u64, level: u64) -> u64 {
    0x000f_0000_0000_ffff | flags << 52 | (access | level << 5) << 40
}

impl Driver<'_> {
    fn long(&self) -> bool {
        self.table.mode.long()
    }

    /// CR4 of IA-32e mode.
    fn levels(&self) -> u32 {
        if self.table.mode == Mode::Long5 { CR4_PAE | CR4_LA57 } else { CR4_PAE }
    }

    /// CR3 of IA-32e mode.
    fn root(&self) -> u32 {
        if self.table.mode == Mode::Long5 { at::PAGES + 0x3000 } else { at::PAGES }
    }

    fn code_selector(&self) -> u16 {
        if self.long() { selector::CODE64 } else { selector::CODE32 }
    }

    /// What is at [`at::LIVE`] when a cell begins.
    pub(super) fn pristine(&self) -> Vec<u8> {
        let entry = if self.long() { 16 } else { 8 };
        let mut live = vec![0; (at::IDT - at::LIVE + entry * (DONE + 1)) as usize];
        live.resize(live.len().next_multiple_of(4), 0);
        let mut put = |at: u32, bytes: &[u8]| {
            let from = (at - at::LIVE) as usize;
            live[from..from + bytes.len()].copy_from_slice(bytes);
        };
        let (control0, control4) =
            if self.long() { (CR0 | CR0_PG, self.levels()) } else { (CR0, 0) };
        put(at::CR0, &control0.to_le_bytes());
        put(at::CR3, &self.root().to_le_bytes());
        put(at::CR4, &control4.to_le_bytes());
        for level in 0..4u8 {
            let mut segment = |first: u16, access, flags| {
                let at = super::descriptor(selector::of(first, level));
                put(at, &flat(access, flags, level.into()).to_le_bytes());
            };
            segment(selector::CODE32, 0x9b, 0xc);
            segment(selector::DATA, 0x93, 0xc);
            segment(selector::CODE64, 0x9b, 0xa);
        }
        let tss = u64::from(at::TSS);
        let tss = 0x67 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | tss >> 24 << 56;
        put(super::descriptor(selector::TSS), &tss.to_le_bytes());
        for level in 0..3u8 {
            let (stack, data) = (at::inner_stack(level), selector::of(selector::DATA, level));
            let field = at::TSS + 4 + 8 * u32::from(level);
            put(field, &stack.to_le_bytes());
            if !self.long() {
                put(field + 4, &data.to_le_bytes());
            }
        }
        for vector in (0..VECTORS).chain([DONE]) {
            let handler = u64::from(Self::entry_of(vector));
            let access = if vector == DONE { 0xee00 } else { 0x8e00 };
            let gate = handler & 0xffff
                | u64::from(self.code_selector()) << 16
                | access << 32
                | handler >> 16 << 48;
            put(at::IDT + entry * vector, &gate.to_le_bytes());
        }
        for (at, word) in &self.table.live {
            put(*at, &word.to_le_bytes());
        }
        live
    }

    fn entry_of(vector: u32) -> u32 {
        at::ENTRIES + ENTRY * vector.min(VECTORS)
    }

    /// Where the loader enters: 32 bits, flat. `ebx` is the multiboot information.
    pub(super) fn entry(&self, origin: u32) -> Code {
        let mut a = CodeAssembler::new(32)?;
        let [mut look, mut next, mut found, mut ready] = [(); 4].map(|()| a.create_label());
        a.cli()?;
        a.cld()?;
        a.mov(esp, at::DRIVER_STACK)?;
        // Code that sets IF gets no interrupt of a device.
        a.mov(al, 0xff)?;
        a.out(PIC_MASKS[0], al)?;
        a.out(PIC_MASKS[1], al)?;
        a.xor(ebp, ebp)?;
        a.test(dword_ptr(ebx), 4)?;
        a.je(ready)?;
        a.mov(esi, dword_ptr(ebx + 16))?;
        a.set_label(&mut look)?;
        a.cmp(dword_ptr(esi), u32::from_le_bytes(*b"list") as i32)?;
        a.je(found)?;
        a.cmp(byte_ptr(esi), 0)?;
        a.jne(next)?;
        a.jmp(ready)?;
        a.set_label(&mut next)?;
        a.inc(esi)?;
        a.jmp(look)?;
        a.set_label(&mut found)?;
        a.inc(ebp)?;
        a.set_label(&mut ready)?;
        a.mov(edi, at::VARIABLES)?;
        a.mov(ecx, 0x400)?;
        a.xor(eax, eax)?;
        a.rep().stosd()?;
        a.mov(dword_ptr(LIST), ebp)?;
        a.mov(dword_ptr(NEXT), self.cells)?;
        a.mov(dword_ptr(CELL), -1)?;
        // INT 0x80; MOV EAX, ESP and INT 0x80.
        a.mov(dword_ptr(at::LANDING), 0x80cd)?;
        a.mov(dword_ptr(super::LANDING_STACK), 0x80cd_e089u32 as i32)?;
        self.copy_pristine(&mut a)?;
        if self.long() {
            self.enter_long_mode(&mut a)?;
        } else if !self.table.frames.is_empty() {
            a.mov(ecx, MSR_EFER)?;
            a.mov(eax, EFER_NXE)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
        }
        for (table, limit) in [(at::GDT, selector::LIMIT), (at::IDT, 0x0fff)] {
            a.mov(dword_ptr(VARIABLE_TABLE), u32::from(limit))?;
            a.mov(dword_ptr(VARIABLE_TABLE + 2), table)?;
            if table == at::GDT {
                a.lgdt(ptr(VARIABLE_TABLE))?;
            } else {
                a.lidt(ptr(VARIABLE_TABLE))?;
            }
        }
        // Far JMP to the loop.
        a.db(&[0xea])?;
        a.dd(&[at::LOOP])?;
        a.dw(&[self.code_selector()])?;
        a.assemble(origin.into())
    }

    /// Paging of the lowest GiB as it is, by pages of 2 MiB for everybody.
    fn enter_long_mode(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut next = a.create_label();
        a.mov(edi, at::PAGES)?;
        a.mov(ecx, 4 * 0x400)?;
        a.xor(eax, eax)?;
        a.rep().stosd()?;
        a.mov(dword_ptr(at::PAGES), (at::PAGES + 0x1000) | 7)?;
        a.mov(dword_ptr(at::PAGES + 0x1000), (at::PAGES + 0x2000) | 7)?;
        a.mov(dword_ptr(at::PAGES + 0x3000), at::PAGES | 7)?;
        a.mov(eax, 0xe7)?;
        a.mov(edi, at::PAGES + 0x2000)?;
        a.set_label(&mut next)?;
        a.mov(dword_ptr(edi), eax)?;
        a.add(edi, 8)?;
        a.add(eax, 0x20_0000)?;
        a.cmp(eax, 0x4000_0000)?;
        a.jb(next)?;
        a.mov(eax, self.levels())?;
        a.mov(cr4, eax)?;
        a.mov(eax, self.root())?;
        a.mov(cr3, eax)?;
        a.mov(ecx, MSR_EFER)?;
        a.mov(eax, EFER)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.mov(eax, CR0 | CR0_PG)?;
        a.mov(cr0, eax)
    }

    fn copy_pristine(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.mov(esi, at::PRISTINE)?;
        a.mov(edi, at::LIVE)?;
        a.mov(ecx, self.pristine().len() as u32 / 4)?;
        a.rep().movsd()
    }

    fn asm(&self) -> Result<CodeAssembler, IcedError> {
        CodeAssembler::new(self.table.mode.bits())
    }

    /// Loads a control register from a word.
    fn load_control(
        &self,
        a: &mut CodeAssembler,
        from: u32,
        to: AsmRegisterCr,
    ) -> Result<(), IcedError> {
        a.mov(eax, dword_ptr(from))?;
        if self.long() { a.mov(to, rax) } else { a.mov(to, eax) }
    }

    fn push(
        &self,
        a: &mut CodeAssembler,
        r32: AsmRegister32,
        r64: AsmRegister64,
    ) -> Result<(), IcedError> {
        if self.long() { a.push(r64) } else { a.push(r32) }
    }

    /// Begins the next cell.
    pub(super) fn main_loop(&self) -> Code {
        let mut a = self.asm()?;
        let [mut go_on, mut poke, mut poked, mut same] = [(); 4].map(|()| a.create_label());
        a.mov(eax, u32::from(selector::DATA))?;
        for segment in [ss, ds, es] {
            a.mov(segment, eax)?;
        }
        a.mov(esp, at::DRIVER_STACK)?;
        a.mov(esi, dword_ptr(NEXT))?;
        a.mov(dword_ptr(RECORD), esi)?;
        a.inc(dword_ptr(CELL))?;
        a.cmp(dword_ptr(CELL), self.table.cells.len() as i32)?;
        a.jne(go_on)?;
        self.end(&mut a)?;
        a.set_label(&mut go_on)?;
        self.copy_pristine(&mut a)?;
        if !self.table.frames.is_empty() {
            // Without the rules of the cell before, which also hold for what follows.
            self.load_control(&mut a, at::CR4, cr4)?;
            self.load_control(&mut a, at::CR3, cr3)?;
            self.load_control(&mut a, at::CR0, cr0)?;
        }
        for level in 0..4 {
            self.clear_stack(&mut a, at::stack(level))?;
            if level < 3 {
                self.clear_stack(&mut a, at::inner_stack(level))?;
            }
        }
        a.mov(esi, dword_ptr(RECORD))?;
        a.mov(ecx, dword_ptr(esi + record::POKES))?;
        a.lea(edi, ptr(esi + record::END))?;
        a.set_label(&mut poke)?;
        a.test(ecx, ecx)?;
        a.je(poked)?;
        a.mov(eax, dword_ptr(edi))?;
        a.mov(edx, dword_ptr(edi + 4))?;
        a.mov(dword_ptr(eax), edx)?;
        a.add(edi, 8)?;
        a.dec(ecx)?;
        a.jmp(poke)?;
        a.set_label(&mut poked)?;
        a.mov(dword_ptr(NEXT), edi)?;
        a.xor(eax, eax)?;
        a.lldt(ax)?;
        a.mov(eax, u32::from(selector::TSS))?;
        a.ltr(ax)?;
        for (&msr, from) in self.table.msrs.iter().zip((at::MSRS..).step_by(8)) {
            a.mov(ecx, msr)?;
            a.mov(eax, dword_ptr(from))?;
            a.mov(edx, dword_ptr(from + 4))?;
            a.wrmsr()?;
        }
        for (&watched, before) in self.table.watch.iter().zip((BEFORE..).step_by(4)) {
            a.mov(eax, dword_ptr(watched))?;
            a.mov(dword_ptr(before), eax)?;
        }
        self.load_control(&mut a, at::CR4, cr4)?;
        self.load_control(&mut a, at::CR3, cr3)?;
        self.load_control(&mut a, at::CR0, cr0)?;
        a.xor(eax, eax)?;
        if self.long() {
            a.mov(cr2, rax)?;
        } else {
            a.mov(cr2, eax)?;
        }
        a.mov(eax, u32::from(selector::of(selector::DATA, 3)))?;
        for segment in [ds, es, fs, gs] {
            a.mov(segment, eax)?;
        }
        a.mov(eax, dword_ptr(esi + record::SS))?;
        if !self.long() {
            // IRET to level 0 takes no stack.
            a.test(byte_ptr(esi + record::CS), 3)?;
            a.je(same)?;
        }
        self.push(&mut a, eax, rax)?;
        a.mov(eax, dword_ptr(esi + record::ESP))?;
        self.push(&mut a, eax, rax)?;
        if !self.long() {
            let mut ready = a.create_label();
            a.jmp(ready)?;
            a.set_label(&mut same)?;
            a.mov(ss, eax)?;
            a.mov(esp, dword_ptr(esi + record::ESP))?;
            a.set_label(&mut ready)?;
        }
        a.push(2)?;
        for field in [record::CS, record::STUB] {
            a.mov(eax, dword_ptr(esi + field))?;
            self.push(&mut a, eax, rax)?;
        }
        for (register, field) in
            [eax, ebx, ecx, edx].into_iter().zip((record::REGISTERS..).step_by(4))
        {
            a.mov(register, dword_ptr(esi + field))?;
        }
        a.xor(esi, esi)?;
        a.xor(edi, edi)?;
        a.xor(ebp, ebp)?;
        if self.long() {
            a.iretq()?;
        } else {
            a.iretd()?;
        }
        a.assemble(at::LOOP.into())
    }

    fn clear_stack(&self, a: &mut CodeAssembler, top: u32) -> Result<(), IcedError> {
        a.xor(eax, eax)?;
        a.mov(edi, top - 4 * CLEARED)?;
        a.mov(ecx, CLEARED)?;
        a.rep().stosd()
    }

    /// Where vectors lead: a frame with an error code and the vector, whatever it was.
    pub(super) fn entries(&self) -> Code {
        let mut code = Vec::new();
        for vector in (0..VECTORS).chain([DONE]) {
            let at = Self::entry_of(vector);
            code.resize((at - at::ENTRIES) as usize, 0xf4);
            let mut a = self.asm()?;
            if vector >= VECTORS || WITH_ERROR >> vector & 1 == 0 {
                a.push(0)?;
            }
            a.push(vector as i32)?;
            a.jmp(u64::from(at::TRAP))?;
            code.extend(a.assemble(at.into())?);
        }
        Ok(code)
    }

    /// Notes the outcome, compares or prints it, and goes on.
    pub(super) fn trap(&self) -> Code {
        let mut a = self.asm()?;
        let word = if self.long() { 8 } else { 4 };
        let general = [(edx, rdx), (ecx, rcx), (ebx, rbx), (eax, rax)];
        for (r32, r64) in general.into_iter().rev() {
            self.push(&mut a, r32, r64)?;
        }
        // The segments that the cell leaves, before any is used but SS.
        a.mov(ebx, ds)?;
        a.mov(ecx, es)?;
        a.shl(ecx, 16)?;
        a.or(ecx, ebx)?;
        a.mov(ebx, fs)?;
        a.mov(edx, gs)?;
        a.shl(edx, 16)?;
        a.or(edx, ebx)?;
        a.mov(eax, u32::from(selector::DATA))?;
        a.mov(ds, eax)?;
        a.mov(es, eax)?;
        a.cld()?;
        a.mov(dword_ptr(outcome(Word::Data)), ecx)?;
        a.mov(dword_ptr(outcome(Word::Extra)), edx)?;
        // From the top of the stack: EDX, ECX, EBX, EAX, vector, error code, and what the event pushed.
        let frame = |index: u32| {
            if word == 8 { dword_ptr(rsp + 8 * index) } else { dword_ptr(esp + 4 * index) }
        };
        for (index, to) in [
            (1, Word::Ecx),
            (3, Word::Eax),
            (4, Word::Vector),
            (5, Word::Error),
            (6, Word::Ip),
            (7, Word::Cs),
            (8, Word::Flags),
            (8, Word::Eflags),
        ] {
            a.mov(eax, frame(index))?;
            match to {
                Word::Flags => a.and(eax, FLAGS as i32)?,
                Word::Cs => a.and(eax, 0xffff)?,
                _ => {}
            }
            a.mov(dword_ptr(outcome(to)), eax)?;
        }
        let (mut outer, mut stack_known) = (a.create_label(), a.create_label());
        a.test(dword_ptr(outcome(Word::Cs)), 3)?;
        a.jne(outer)?;
        a.mov(eax, ss)?;
        a.jmp(stack_known)?;
        a.set_label(&mut outer)?;
        a.mov(eax, frame(10))?;
        a.and(eax, 0xffff)?;
        a.set_label(&mut stack_known)?;
        a.mov(dword_ptr(outcome(Word::Ss)), eax)?;

        a.mov(eax, u32::from(selector::DATA))?;
        a.mov(ss, eax)?;
        a.mov(esp, at::DRIVER_STACK)?;
        a.push(2)?;
        if self.long() {
            a.popfq()?;
        } else {
            a.popfd()?;
        }
        self.note_processor(&mut a)?;
        self.note_place(&mut a)?;
        self.note_stack(&mut a)?;
        for (index, word) in self.table.words.iter().enumerate() {
            a.mov(eax, dword_ptr(outcome(*word)))?;
            a.mov(dword_ptr(COMPARED + 4 * index as u32), eax)?;
        }
        self.judge(&mut a)?;
        a.jmp(u64::from(at::LOOP))?;
        a.assemble(at::TRAP.into())
    }

    fn note_processor(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.xor(eax, eax)?;
        a.sldt(ax)?;
        a.mov(dword_ptr(outcome(Word::Ldtr)), eax)?;
        a.str(ax)?;
        a.mov(dword_ptr(outcome(Word::Tr)), eax)?;
        for (control, to) in [(cr2, Word::Cr2), (cr0, Word::Cr0)] {
            if self.long() {
                a.mov(rax, control)?;
            } else {
                a.mov(eax, control)?;
            }
            a.mov(dword_ptr(outcome(to)), eax)?;
        }
        for (index, &watched) in (0..).zip(&self.table.watch) {
            a.mov(eax, dword_ptr(watched))?;
            a.xor(eax, dword_ptr(BEFORE + 4 * index))?;
            a.mov(dword_ptr(outcome(Word::Watch0) + 4 * index), eax)?;
        }
        Ok(())
    }

    /// A place in the stub becomes its offset there.
    fn note_place(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut known = a.create_label();
        a.mov(esi, dword_ptr(RECORD))?;
        a.mov(eax, dword_ptr(outcome(Word::Ip)))?;
        a.sub(eax, dword_ptr(esi + record::STUB))?;
        a.cmp(eax, STUB)?;
        a.jae(known)?;
        a.mov(dword_ptr(outcome(Word::Ip)), eax)?;
        a.set_label(&mut known)?;
        a.zero_bytes()
    }

    /// Where the second landing was reached, EAX is its stack pointer, or the lower half of it.
    fn note_stack(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut done = a.create_label();
        a.xor(eax, eax)?;
        a.mov(edi, outcome(Word::Stack0))?;
        a.mov(ecx, 6)?;
        a.rep().stosd()?;
        a.cmp(dword_ptr(outcome(Word::Ip)), (super::LANDING_STACK + 4) as i32)?;
        a.jne(done)?;
        a.mov(esi, dword_ptr(outcome(Word::Eax)))?;
        a.movzx(esi, si)?;
        a.add(esi, 0x7_0000)?;
        a.mov(edi, outcome(Word::Stack0))?;
        a.mov(ecx, 6)?;
        a.rep().movsd()?;
        a.set_label(&mut done)?;
        a.zero_bytes()
    }
}

/// Operand of LGDT and LIDT.
const VARIABLE_TABLE: u32 = at::VARIABLES + 0x300;
const _: () = assert!(COMPARED - OUTCOME >= 4 * Word::COUNT);
