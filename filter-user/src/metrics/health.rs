//! What only the process knows.

/// How the process that stays on watch is doing. It writes this, through a watch channel; monitoring reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The interfaces that are to be guarded, by name.
    pub interfaces: Vec<String>,
    /// Whether the policy was put in force once.
    pub started: bool,
    /// How often the files could not be put in force.
    pub reload_failures: u64,
    /// Why that failed the last time; none if it succeeded.
    pub reload_error: Option<String>,
    /// How the kernel differs from the files; none if it does not.
    pub drift: Option<String>,
}

impl Health {
    /// The policy is in force on `interfaces`.
    pub fn start(&mut self, interfaces: Vec<String>) {
        self.interfaces = interfaces;
        self.started = true;
    }

    /// The files were put in force, or could not be.
    pub fn reloaded(&mut self, error: Option<String>) {
        self.reload_failures += u64::from(error.is_some());
        self.reload_error = error;
    }

    /// Why the node may not be guarded as its files say, as far as the process knows.
    pub fn complaints(&self) -> Vec<String> {
        let starting = (!self.started).then(|| "starting: nothing is in force yet".to_owned());
        let reload = self
            .reload_error
            .as_ref()
            .map(|error| format!("the files are not in force; the policy before stays: {error}"));
        let drift = self.drift.as_ref().map(|drift| format!("drift: {drift}"));
        [starting, reload, drift].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_complains_until_all_is_well() {
        let mut health = Health::default();
        assert_eq!(health.complaints(), ["starting: nothing is in force yet"]);
        health.start(vec!["eth0".to_owned()]);
        assert_eq!(health.complaints(), [""; 0]);
        for _ in 0..2 {
            health.reloaded(Some("ranges:1: nonsense".to_owned()));
        }
        health.drift = Some("another list".to_owned());
        assert_eq!(health.complaints().len(), 2);
        health.drift = None;
        health.reloaded(None);
        assert_eq!(health.complaints(), [""; 0]);
        assert_eq!(health.reload_failures, 2, "failures stay counted");
    }
}
