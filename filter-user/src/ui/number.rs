//! Numbers as people read them.

/// A number with separators between thousands: `12,431`.
pub fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// A number of things: `1 range`, `2 ranges`.
pub fn plural(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(number as u64))
}

/// A number of bytes in a decimal unit: `677.7 kB`.
pub fn bytes(number: u64) -> String {
    scaled(number as f64, "B")
}

/// A rate: `113`, `12.4 k`. Small ones have a decimal: `0.3`.
pub fn rate(number: f64) -> String {
    let text = scaled(number, "");
    text.trim_end().to_owned()
}

/// `number` with a decimal prefix of `unit`.
fn scaled(number: f64, unit: &str) -> String {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let (mut number, mut prefix) = (number, 0);
    // 999.95 would be rounded to `1000.0`.
    while number >= 999.95 && prefix + 1 < PREFIXES.len() {
        number /= 1000.0;
        prefix += 1;
    }
    let is_whole = prefix == 0 && (number.fract() == 0.0 || number >= 10.0);
    let digits = if is_whole { 0 } else { 1 };
    format!("{number:.digits$} {}{unit}", PREFIXES[prefix])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_or_units() {
        assert_eq!(count(12_548), "12,548");
        assert_eq!(plural(1, "range"), "1 range");
        assert_eq!(plural(3_500, "range"), "3,500 ranges");
        for (number, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (677_658, "677.7 kB"),
            (999_950, "1.0 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(number), want);
        }
        for (number, want) in [
            (0.0, "0"),
            (0.34, "0.3"),
            (113.4, "113"),
            (12_431.0, "12.4 k"),
        ] {
            assert_eq!(rate(number), want);
        }
    }
}
