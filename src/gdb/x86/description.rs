//! The target description that gdb gets (gdb manual, "Target Descriptions" and "i386 Features").

use std::fmt::Write;
use std::sync::LazyLock;

use super::shape::Shape;
use super::{Register, SYSTEM, System};

const SELECTOR_NAMES: [&str; 6] = ["cs", "ss", "ds", "es", "fs", "gs"];
const X87_NAMES: [&str; 8] = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];
const FLAG_NAMES: [(&str, u32); 17] = [
    ("CF", 0),
    ("PF", 2),
    ("AF", 4),
    ("ZF", 6),
    ("SF", 7),
    ("TF", 8),
    ("IF", 9),
    ("DF", 10),
    ("OF", 11),
    ("NT", 14),
    ("RF", 16),
    ("VM", 17),
    ("AC", 18),
    ("VIF", 19),
    ("VIP", 20),
    ("ID", 21),
    ("", 1),
];
/// How gdb may show 16 bytes: name, type of an element, number of elements.
const VECTORS: [(&str, &str, u32); 6] = [
    ("v4_float", "ieee_single", 4),
    ("v2_double", "ieee_double", 2),
    ("v16_int8", "int8", 16),
    ("v8_int16", "int16", 8),
    ("v4_int32", "int32", 4),
    ("v2_int64", "int64", 2),
];

/// The description of a shape.
pub(super) fn of(shape: Shape) -> &'static str {
    static I8086: LazyLock<String> = LazyLock::new(|| describe(Shape::I8086));
    static I386: LazyLock<String> = LazyLock::new(|| describe(Shape::I386));
    static X86_64: LazyLock<String> = LazyLock::new(|| describe(Shape::X86_64));
    match shape {
        Shape::I8086 => &I8086,
        Shape::I386 => &I386,
        Shape::X86_64 => &X86_64,
    }
}

/// The feature that a register belongs to. Where code has 64 bits gdb knows the bases of FS and GS.
fn feature(shape: Shape, register: Register) -> &'static str {
    match register {
        Register::Xmm(_) | Register::Mxcsr => "org.gnu.gdb.i386.sse",
        Register::YmmHigh(_) => "org.gnu.gdb.i386.avx",
        Register::System(System::FsBase | System::GsBase) if shape == Shape::X86_64 => {
            "org.gnu.gdb.i386.segments"
        }
        Register::System(_) => "mimic.i386.system",
        _ => "org.gnu.gdb.i386.core",
    }
}

/// What a feature's registers are made of.
fn types(xml: &mut String, feature: &str) {
    // Writing to a string cannot fail, here and below.
    if feature == "org.gnu.gdb.i386.core" {
        xml.push_str("<flags id=\"i386_eflags\" size=\"4\">");
        for (name, bit) in FLAG_NAMES {
            let _ = write!(xml, "<field name=\"{name}\" start=\"{bit}\" end=\"{bit}\"/>");
        }
        xml.push_str("</flags>");
    } else if feature == "org.gnu.gdb.i386.sse" {
        for (name, kind, count) in VECTORS {
            let _ = write!(xml, "<vector id=\"{name}\" type=\"{kind}\" count=\"{count}\"/>");
        }
        xml.push_str("<union id=\"vec128\">");
        for (name, _, _) in VECTORS {
            let _ = write!(xml, "<field name=\"{name}\" type=\"{name}\"/>");
        }
        xml.push_str("<field name=\"uint128\" type=\"uint128\"/></union>");
    }
}

fn describe(shape: Shape) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>{}</architecture>",
        shape.architecture()
    );
    let (gprs, pc) = shape.names();
    let mut current = "";
    for (number, register) in shape.registers().enumerate() {
        let feature = feature(shape, register);
        if feature != current {
            let end = if current.is_empty() { "" } else { "</feature>" };
            let _ = write!(xml, "{end}<feature name=\"{feature}\">");
            types(&mut xml, feature);
            current = feature;
        }
        let integer = if shape == Shape::X86_64 { "int64" } else { "int32" };
        let (name, kind) = match register {
            Register::Gpr(_) => {
                let name = gprs[number];
                let stack = matches!(name, "rbp" | "rsp" | "ebp" | "esp");
                (name.to_owned(), if stack { "data_ptr" } else { integer })
            }
            Register::Pc => (pc.to_owned(), "code_ptr"),
            Register::Flags => ("eflags".to_owned(), "i386_eflags"),
            Register::Selector(index) => (SELECTOR_NAMES[index].to_owned(), "int32"),
            Register::X87(index) => (format!("st{index}"), "i387_ext"),
            Register::X87Word(index) => (X87_NAMES[index].to_owned(), "int"),
            Register::Xmm(index) => (format!("xmm{index}"), "vec128"),
            Register::Mxcsr => ("mxcsr".to_owned(), "int"),
            Register::YmmHigh(index) => (format!("ymm{index}h"), "uint128"),
            Register::System(register) => {
                let name = SYSTEM.iter().find(|(_, other)| *other == register);
                (name.map_or("", |(name, _)| name).to_owned(), "int64")
            }
        };
        let bits = 8 * shape.bytes(register);
        let _ = write!(
            xml,
            "<reg name=\"{name}\" bitsize=\"{bits}\" regnum=\"{number}\" type=\"{kind}\"/>"
        );
    }
    xml.push_str("</feature></target>");
    xml
}
