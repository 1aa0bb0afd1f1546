//! What the folders of checkpoints are called.

/// The folder of a checkpoint that is whole.
pub(super) fn finished(step: u64) -> String {
    format!("step-{step:08}")
}

/// The folder of one that is being written, or removed.
pub(super) fn partial(step: u64) -> String {
    format!(".step-{step:08}.partial")
}

/// The folder of one that another one of the same step is about to replace.
pub(super) fn replaced(step: u64) -> String {
    format!(".step-{step:08}.replaced")
}

/// The step for which `name` is such a name.
pub(super) fn step_of(name: &str, form: fn(u64) -> String) -> Option<u64> {
    let is_digit = |c: char| c.is_ascii_digit();
    let digits = name.trim_start_matches(|c| !is_digit(c)).trim_end_matches(|c| !is_digit(c));
    digits.parse().ok().filter(|&step| form(step) == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_tells_its_step(step: u64) {
            let forms = [finished, partial, replaced];
            for (at, form) in forms.into_iter().enumerate() {
                let name = form(step);
                let found = forms.map(|form| step_of(&name, form));
                let mut expected = [None; 3];
                expected[at] = Some(step);
                prop_assert_eq!(found, expected, "{}", name);
            }
        }
    }

    #[test]
    fn other_names_are_no_checkpoints() {
        for name in ["step-1", "step-000000001", "step-+0000001", "step-0000000x", "Step-00000001"]
        {
            assert_eq!(step_of(name, finished), None, "{name}");
        }
    }
}
