//! The probable name for an unknown one.

/// The minimum similarity of two names.
const ALIKE: f64 = 0.7;

/// The one of `names` that is most similar to `name`, if it is similar enough.
pub fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro(name, other);
    let names = names.iter().copied();
    names
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
        .filter(|other| likeness(other) > ALIKE)
}
