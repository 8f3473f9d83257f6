//! Runs one instruction on the host.

use memmap2::{Mmap, MmapMut};

/// What an instruction works on besides memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct State {
    pub(crate) gpr: [u64; 16],
    pub(crate) flags: u64,
    /// The host's stack pointer meanwhile.
    pub(crate) host_rsp: u64,
    /// The host's MXCSR afterwards.
    pub(crate) host_mxcsr: u64,
    /// x87, XMM and YMM registers.
    pub(crate) area: Area,
}

/// An area of XSAVE in the standard format (SDM vol. 1, 13.4): x87, SSE and AVX.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Area(pub(crate) [u8; 832]);

/// MXCSR after reset.
const MXCSR: u32 = 0x1f80;

impl Default for Area {
    fn default() -> Self {
        let mut bytes = [0; 832];
        bytes[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        bytes[24..28].copy_from_slice(&MXCSR.to_le_bytes());
        // XSTATE_BV: all three components are there.
        bytes[512] = 7;
        Area(bytes)
    }
}

impl std::fmt::Debug for Area {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "x87 {:02x?}", &self.0[..5])?;
        for (i, register) in self.0[32..160].chunks_exact(16).enumerate() {
            write!(f, " st{i} {:02x?}", &register[..10])?;
        }
        write!(f, " mxcsr {:02x?}", &self.0[24..28])?;
        for i in 0..16 {
            let half = |at: usize| {
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&self.0[at + 16 * i..][..16]);
                u128::from_le_bytes(bytes)
            };
            write!(f, " ymm{i} {:x}:{:x}", half(576), half(160))?;
        }
        Ok(())
    }
}

impl Area {
    /// Puts YMM`n`.
    pub(crate) fn set_ymm(&mut self, n: usize, value: [u64; 4]) {
        for (i, word) in value.iter().enumerate() {
            let at = if i < 2 { 160 + 16 * n + 8 * i } else { 576 + 16 * n + 8 * (i - 2) };
            self.0[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    }

    /// YMM`n`.
    pub(crate) fn ymm(&self, n: usize) -> [u64; 4] {
        std::array::from_fn(|i| {
            let at = if i < 2 { 160 + 16 * n + 8 * i } else { 576 + 16 * n + 8 * (i - 2) };
            u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
        })
    }

    /// MXCSR.
    pub(crate) fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.0[24..28].try_into().unwrap())
    }

    /// Puts MXCSR.
    pub(crate) fn set_mxcsr(&mut self, mxcsr: u32) {
        self.0[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    }

    /// What of the area must agree: not the last x87 instruction's place, which some processors only keep while an
    /// exception is pending, nor MXCSR_MASK and the header.
    pub(crate) fn compared(&self) -> Self {
        let mut area = *self;
        area.0[5..24].fill(0);
        area.0[28..32].fill(0);
        for register in area.0[32..160].chunks_exact_mut(16) {
            register[10..].fill(0);
        }
        area.0[416..576].fill(0);
        area
    }
}

/// A page for the state, then pages of data that instructions access.
pub(crate) struct Memory {
    map: MmapMut,
}

/// Bytes of data.
pub(crate) const DATA_LEN: usize = 0x3000;
const STATE_LEN: usize = 0x1000;

impl Memory {
    pub(crate) fn new() -> Self {
        Memory { map: MmapMut::map_anon(STATE_LEN + DATA_LEN).unwrap() }
    }

    fn state_address(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// Address of the data.
    pub(crate) fn address(&self) -> u64 {
        self.state_address() + STATE_LEN as u64
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.map[STATE_LEN..]
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.map[STATE_LEN..]
    }
}

/// Host code around an instruction.
pub(crate) struct Trampoline {
    code: Option<MmapMut>,
    exec: Option<Mmap>,
    /// Where the instruction is.
    pub(crate) at: u64,
    entry: u64,
    memory_state: u64,
}

/// Host code that grows at an address.
struct Code {
    at: u64,
    bytes: Vec<u8>,
}

impl Code {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An opcode and a ModRM byte with register field `register`, for memory at `target` relative to RIP.
    fn relative(&mut self, opcode: &[u8], register: u8, target: u64) {
        self.put(opcode);
        let next = self.at + self.bytes.len() as u64 + 5;
        self.put(&[(register & 7) << 3 | 5]);
        self.put(&(target.wrapping_sub(next) as i32).to_le_bytes());
    }

    /// MOV between a 64-bit register and memory.
    fn mov(&mut self, opcode: u8, register: u8, target: u64) {
        self.relative(&[0x48 | register >> 3 << 2, opcode], register, target);
    }
}

const STORE: u8 = 0x89;
const LOAD: u8 = 0x8b;
const RSP: u8 = 4;
/// PUSH and POP of RBX, RBP, R12 to R15.
const PUSHES: [u8; 10] = [0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57];
const POPS: [u8; 10] = [0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b];
/// XOR EDX, EDX and MOV EAX, 7: x87, SSE and AVX.
const COMPONENTS: [u8; 7] = [0x31, 0xd2, 0xb8, 7, 0, 0, 0];
/// Offset of the instruction in its page.
const AT: u64 = 0xc0;

impl Trampoline {
    pub(crate) fn new(memory: &Memory) -> Self {
        let code = MmapMut::map_anon(0x1000).unwrap();
        let at = code.as_ptr() as u64 + AT;
        let memory_state = memory.state_address();
        assert!(at.abs_diff(memory_state) < 1 << 30, "both mappings are near each other");
        Trampoline { code: Some(code), exec: None, at, entry: 0, memory_state }
    }

    /// Puts an instruction into the trampoline.
    pub(crate) fn set(&mut self, insn: &[u8]) {
        let mut code = match self.exec.take() {
            Some(exec) => exec.make_mut().unwrap(),
            None => self.code.take().unwrap(),
        };
        let base = code.as_ptr() as u64;
        let state = self.memory_state;
        let slot = |index: u64| state + 8 * index;
        let area = state + std::mem::offset_of!(State, area) as u64;
        let mut before = Code { at: base, bytes: Vec::new() };
        before.put(&PUSHES);
        before.mov(STORE, RSP, slot(17));
        before.put(&COMPONENTS);
        before.relative(&[0x0f, 0xae], 5, area); // XRSTOR
        before.relative(&[0xff], 6, slot(16)); // PUSH
        before.put(&[0x9d]); // POPFQ
        for register in 0..16 {
            before.mov(LOAD, register, slot(u64::from(register)));
        }
        // NOPs lead to the instruction.
        let before = before.bytes;
        code[..AT as usize].fill(0x90);
        let behind = AT as usize + insn.len();
        let mut after = Code { at: base + behind as u64, bytes: Vec::new() };
        for register in 0..16 {
            after.mov(STORE, register, slot(u64::from(register)));
        }
        after.mov(LOAD, RSP, slot(17));
        after.put(&[0x9c]); // PUSHFQ
        after.relative(&[0x8f], 0, slot(16)); // POP
        after.put(&[0xfc]); // CLD
        after.put(&COMPONENTS);
        after.relative(&[0x0f, 0xae], 4, area); // XSAVE
        after.put(&[0xdb, 0xe3]); // FNINIT
        after.relative(&[0x0f, 0xae], 2, slot(18)); // LDMXCSR
        after.put(&[0xc5, 0xf8, 0x77]); // VZEROUPPER
        after.put(&POPS);
        after.put(&[0xc3]); // RET
        let after = after.bytes;
        code[..before.len()].copy_from_slice(&before);
        code[AT as usize..behind].copy_from_slice(insn);
        code[behind..behind + after.len()].copy_from_slice(&after);
        self.entry = base;
        self.exec = Some(code.make_exec().unwrap());
    }

    /// Runs the instruction on `state` and `memory`.
    pub(crate) fn run(&self, memory: &mut Memory, state: &State) -> State {
        assert_eq!(memory.state_address(), self.memory_state);
        let slot = memory.map.as_mut_ptr().cast::<State>();
        // SAFETY: the state's page is mapped, aligned and not referenced.
        unsafe { slot.write(State { host_mxcsr: MXCSR.into(), ..*state }) };
        // SAFETY: `set` has made a function of the C calling convention at `entry`, which stays mapped and executable
        // while `exec` lives; it keeps the registers that it must and accesses the state's page and, by the tests'
        // choice of registers, the data.
        unsafe {
            let function: extern "C" fn() = std::mem::transmute(self.entry as usize);
            function();
            slot.read()
        }
    }
}
