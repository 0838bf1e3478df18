//! Which name is meant by one that there is not.

/// How alike two names must be for one to be meant by the other.
const ALIKE: f64 = 0.7;

/// The one of `names` that `name` is most like, if it may be meant.
pub fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro(name, other);
    let names = names.iter().copied();
    names
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
        .filter(|other| likeness(other) > ALIKE)
}
