//! Values of options: sizes, times, counts and addresses as people write them.

use std::time::Duration;

/// Bytes: `512M`, `2G`, `64KiB`, `1048576`. Units are powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = |why: &str| format!("`{text}` {why}; give a size like 512M or 2G");
    let (number, unit) = split(text);
    let number: u64 = number.parse().map_err(|_| wrong("is no size"))?;
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong("has an unknown unit (K, M, G, T are known)")),
    };
    let bytes = number.checked_mul(1 << shift).ok_or_else(|| wrong("is larger than 2^64"))?;
    if bytes == 0 {
        return Err(wrong("is nothing"));
    }
    Ok(bytes)
}

/// Memory: a [`size`] of whole pages. A plain small number is taken for the mistake it is.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if text.bytes().all(|b| b.is_ascii_digit()) && bytes < 1 << 20 {
        return Err(format!("`{text}` means {text} bytes; did you mean {text}M?"));
    }
    if !bytes.is_multiple_of(4096) {
        return Err(format!("`{text}` is no multiple of 4096 bytes; give a size like 512M"));
    }
    Ok(bytes)
}

/// A time: `30`, `30s`, `500ms`, `5m`, `1h`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; give one like 30s, 500ms or 5m");
    let (number, unit) = split(text);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let time = Duration::try_from_secs_f64(number * scale).map_err(|_| wrong())?;
    if time.is_zero() { Err(wrong()) } else { Ok(time) }
}

/// A count: `1000000`, `5M`, `2G`. Units are powers of 1000.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no count; give one like 1000000, 5M or 2G");
    let (number, unit) = split(text);
    let number: u64 = number.replace('_', "").parse().map_err(|_| wrong())?;
    let scale: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(scale).filter(|n| *n > 0).ok_or_else(wrong)
}

/// An address: `0x80000000`, or decimal.
pub(super) fn address(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    }
    .map_err(|_| format!("`{text}` is no address; give one like 0x80000000"))
}

/// A number of 32 bits: `0x10`, or decimal.
pub(super) fn word(text: &str) -> Result<u32, String> {
    let wrong = |_| format!("`{text}` is no number of 32 bits");
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .map_err(wrong)
}

/// Bytes as people read them, rounded up to MiB.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{}M", bytes.div_ceil(1 << 20))
}

/// Splits digits from the unit behind them.
fn split(text: &str) -> (&str, &str) {
    let end =
        text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("2G"), Ok(2 << 30));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "M", "-1M", "12X", "0", "99999999999T", "1.5G", "512 M B"] {
            assert!(size(wrong).unwrap_err().contains("512M"), "{wrong}");
        }
    }

    #[test]
    fn memory_is_whole_pages_and_not_a_forgotten_unit() {
        assert_eq!(memory("128M"), Ok(128 << 20));
        assert!(memory("512").unwrap_err().contains("512M?"));
        assert!(memory("1048577").unwrap_err().contains("4096"));
    }

    #[test]
    fn times_counts_and_addresses() {
        assert_eq!(time("30"), Ok(Duration::from_secs(30)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "-1", "0", "1d", "1e400"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(count("5M"), Ok(5_000_000));
        assert_eq!(count("1_000"), Ok(1000));
        assert!(count("0").is_err() && count("5Mi").is_err());
        assert_eq!(address("0x8000_0000"), Ok(0x8000_0000));
        assert_eq!(address("4096"), Ok(4096));
        assert!(address("0xg").is_err());
        assert_eq!((word("0x10"), word("77")), (Ok(16), Ok(77)));
        assert!(word("0x100000000").is_err() && word("-1").is_err());
    }
}
