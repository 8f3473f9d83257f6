//! The instruction tables: one row per instruction, one file per chapter of the unprivileged manual.
//!
//! A row is `name format "bit pattern" body`. The pattern gives the decoder and the fuzz generator, the
//! name the disassembly, and the body, generic over [`Sem`], both interpretation and translation.
//!
//! To add an instruction, add its row (and its test vectors); to add an extension, add a file and its
//! line in [`tables`].

pub mod a;
pub mod c;
pub mod d;
pub mod f;
pub mod fp;
pub mod i;
pub mod m;
pub mod sys;
pub mod zb;
pub mod zfa;
pub mod zfh;
pub mod zicbo;

use super::sem::Sem;

/// Register number that stands for x0 as a destination: what is written there is discarded. The
/// decoder puts it in, so that bodies need not ask.
pub const SINK: u8 = 32;

/// Where an instruction lies in its page, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(u16);

impl At {
    /// An instruction of `len` (2 or 4) bytes at `offset` (even, below 4096) in its page.
    #[must_use]
    pub const fn new(offset: u64, len: u64) -> Self {
        At(offset as u16 & 0xffe | (len == 4) as u16)
    }

    /// Offset in the page, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> u64 {
        (self.0 & 0xffe) as u64
    }

    /// Length in bytes: 2 or 4.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        2 + 2 * (self.0 & 1) as u64
    }
}

/// The operands of a decoded instruction, packed. The meaning of the fields depends on the format;
/// each format's type gives them their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Args {
    imm: i32,
    a: u8,
    b: u8,
    at: At,
}

impl Args {
    /// Where the instruction lies.
    #[inline(always)]
    #[must_use]
    pub const fn at(self) -> At {
        self.at
    }

    /// The same operands at another place.
    #[must_use]
    pub const fn moved(self, at: At) -> Self {
        Args { at, ..self }
    }
}

/// Instruction formats: how operands are cut out of the instruction word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Register-register, `rd` in x.
    R,
    /// Register-register, `rd` in f; also three sources.
    Rf,
    /// Register-immediate, `rd` in x.
    I,
    /// Register-immediate, `rd` in f.
    If,
    /// Store.
    S,
    /// Branch.
    B,
    /// Upper immediate.
    U,
    /// Jump.
    J,
    /// CSR.
    Csr,
}

const fn bits(word: u32, high: u32, low: u32) -> u32 {
    word >> low & (u32::MAX >> (31 - (high - low)))
}

impl Format {
    /// Cuts the operands out of the 32-bit instruction `word`.
    #[must_use]
    pub fn operands(self, word: u32, at: At) -> Args {
        let sink = |r: u32| if r == 0 { SINK } else { r as u8 };
        let rd = bits(word, 11, 7);
        let rs1 = bits(word, 19, 15) as u8;
        let rs2 = bits(word, 24, 20) as u8;
        let signed = word as i32;
        match self {
            Format::R | Format::Rf => Args {
                imm: (u32::from(rs2) | bits(word, 14, 12) << 8 | bits(word, 31, 27) << 16) as i32,
                a: if self == Format::R { sink(rd) } else { rd as u8 },
                b: rs1,
                at,
            },
            Format::I => Args { imm: signed >> 20, a: sink(rd), b: rs1, at },
            Format::If => Args { imm: signed >> 20, a: rd as u8, b: rs1, at },
            Format::S => Args { imm: signed >> 25 << 5 | rd as i32, a: rs2, b: rs1, at },
            Format::B => {
                let imm = signed >> 31 << 12
                    | (bits(word, 7, 7) << 11 | bits(word, 30, 25) << 5 | bits(word, 11, 8) << 1)
                        as i32;
                Args { imm, a: rs2, b: rs1, at }
            }
            Format::U => Args { imm: (word & 0xffff_f000) as i32, a: sink(rd), b: 0, at },
            Format::J => {
                let imm = signed >> 31 << 20
                    | (bits(word, 19, 12) << 12
                        | bits(word, 20, 20) << 11
                        | bits(word, 30, 21) << 1) as i32;
                Args { imm, a: sink(rd), b: 0, at }
            }
            Format::Csr => Args { imm: bits(word, 31, 20) as i32, a: sink(rd), b: rs1, at },
        }
    }
}

/// Gives the fields of a format their names.
macro_rules! format_type {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty = $get:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(pub Args);
        impl $name {
            $(
                #[doc = concat!("Operand `", stringify!($field), "`.")]
                #[inline(always)]
                #[must_use]
                pub fn $field(self) -> $ty {
                    let get: fn(Args) -> $ty = $get;
                    get(self.0)
                }
            )*
            /// Where the instruction lies.
            #[inline(always)]
            #[must_use]
            pub fn at(self) -> At {
                self.0.at
            }
        }
    };
}
format_type! {
    /// Register-register.
    R { rd: u8 = |a| a.a; rs1: u8 = |a| a.b; rs2: u8 = |a| a.imm as u8; rm: u8 = |a| (a.imm >> 8) as u8; }
}
format_type! {
    /// Register-register with `rd` in f, and a third source.
    Rf {
        rd: u8 = |a| a.a; rs1: u8 = |a| a.b; rs2: u8 = |a| a.imm as u8;
        rm: u8 = |a| (a.imm >> 8) as u8; rs3: u8 = |a| (a.imm >> 16) as u8;
    }
}
format_type! {
    /// Register-immediate.
    I { rd: u8 = |a| a.a; rs1: u8 = |a| a.b; imm: i64 = |a| i64::from(a.imm); }
}
format_type! {
    /// Register-immediate with `rd` in f.
    If { rd: u8 = |a| a.a; rs1: u8 = |a| a.b; imm: i64 = |a| i64::from(a.imm); }
}
format_type! {
    /// Store.
    S { rs1: u8 = |a| a.b; rs2: u8 = |a| a.a; imm: i64 = |a| i64::from(a.imm); }
}
format_type! {
    /// Branch.
    B { rs1: u8 = |a| a.b; rs2: u8 = |a| a.a; imm: i64 = |a| i64::from(a.imm); }
}
format_type! {
    /// Upper immediate.
    U { rd: u8 = |a| a.a; imm: i64 = |a| i64::from(a.imm); }
}
format_type! {
    /// Jump.
    J { rd: u8 = |a| a.a; imm: i64 = |a| i64::from(a.imm); }
}
format_type! {
    /// CSR; `rs1` is the 5-bit immediate in the immediate forms.
    Csr { rd: u8 = |a| a.a; rs1: u8 = |a| a.b; csr: u16 = |a| a.imm as u16; }
}

/// A bit pattern as the manual draws it: `0`, `1` and `.` from the highest bit down, spaces ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Bits that are fixed.
    pub mask: u32,
    /// Their values.
    pub value: u32,
}

impl Pattern {
    /// Parses a pattern of 16 or 32 bits.
    ///
    /// # Panics
    /// At compile time, if the text is no such pattern.
    #[must_use]
    pub const fn parse(text: &str) -> Self {
        let bytes = text.as_bytes();
        let (mut mask, mut value, mut count, mut i) = (0u32, 0u32, 0, 0);
        while i < bytes.len() {
            let (fixed, bit) = match bytes[i] {
                b'0' => (1, 0),
                b'1' => (1, 1),
                b'.' => (0, 0),
                b' ' => {
                    i += 1;
                    continue;
                }
                _ => panic!("a pattern holds 0, 1, dot and space"),
            };
            mask = mask << 1 | fixed;
            value = value << 1 | bit;
            count += 1;
            i += 1;
        }
        assert!(count == 32 || count == 16, "a pattern has 16 or 32 bits");
        Pattern { mask, value }
    }

    /// Whether `word` fits the pattern.
    #[must_use]
    pub const fn matches(self, word: u32) -> bool {
        word & self.mask == self.value
    }
}

/// What an instruction means: its body, as a type, so that each [`Sem`] can build its own code around it.
pub trait Instruction<S: Sem> {
    /// How the instruction may end.
    const FLOW: Flow;

    /// Performs the instruction.
    ///
    /// # Errors
    /// [`Sem::Stop`] if it did not complete.
    fn perform(s: &mut S, args: Args) -> Result<(), S::Stop>;
}

/// Where execution goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction, unless it traps.
    Next,
    /// To the next instruction or, by [`Sem::branch`], elsewhere.
    Branch,
    /// Nothing after this instruction belongs to the same block: it jumps, or changes how the next one
    /// is fetched, counted or interrupted.
    End,
}

/// A row of an instruction table.
pub struct Row<S: Sem> {
    /// Mnemonic, with `_` for `.`.
    pub name: &'static str,
    /// Operand format.
    pub format: Format,
    /// Encoding.
    pub pattern: Pattern,
    /// Where execution goes afterwards.
    pub flow: Flow,
    /// What `S` made of the body.
    pub handler: S::Handler,
}

/// Makes a table: `table! { name, s, i; rows }`. In a body `s` is the [`Sem`] and `i` the operands; it
/// is an expression of type `()` and may use `?` on what [`Sem`] returns.
macro_rules! table {
    ($(#[$doc:meta])* $table:ident, $s:ident, $i:ident;
     $($name:ident $format:ident $($flow:ident)? [$pattern:literal] $body:expr;)*) => {
        $(
            #[expect(non_camel_case_types, reason = "named after its mnemonic")]
            enum $name {}
            impl<S: $crate::riscv::sem::Sem> $crate::riscv::insn::Instruction<S> for $name {
                const FLOW: $crate::riscv::insn::Flow =
                    $crate::riscv::insn::table!(@flow $($flow)?);

                #[inline(always)]
                #[allow(clippy::unit_arg, unused_variables, reason = "bodies are expressions")]
                fn perform($s: &mut S, args: $crate::riscv::insn::Args) -> Result<(), S::Stop> {
                    let $i = $crate::riscv::insn::$format(args);
                    Ok($body)
                }
            }
        )*

        $(#[$doc])*
        #[must_use]
        pub fn $table<S: $crate::riscv::sem::Sem>() -> Vec<$crate::riscv::insn::Row<S>> {
            vec![$($crate::riscv::insn::Row {
                name: stringify!($name),
                format: $crate::riscv::insn::Format::$format,
                pattern: const { $crate::riscv::insn::Pattern::parse($pattern) },
                flow: <$name as $crate::riscv::insn::Instruction<S>>::FLOW,
                handler: S::handler::<$name>(),
            }),*]
        }
    };
    (@flow) => { $crate::riscv::insn::Flow::Next };
    (@flow ends) => { $crate::riscv::insn::Flow::End };
    (@flow branch) => { $crate::riscv::insn::Flow::Branch };
}
pub(crate) use table;

/// All tables of 32-bit instructions.
#[must_use]
pub fn tables<S: Sem>() -> Vec<Row<S>> {
    [
        i::rows(),
        m::rows(),
        a::rows(),
        f::rows(),
        d::rows(),
        zfh::rows(),
        zfa::rows(),
        zb::rows(),
        zicbo::rows(),
        sys::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
