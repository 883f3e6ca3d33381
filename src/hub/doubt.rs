//! Names in the configuration that lead to nobody. Whom they name may still be made by command, so they stop nothing.

use crate::hub::Hub;
use crate::hub::mail;
use crate::hub::view::Principal;

impl Hub {
    /// Groups that nobody is in, and aliases that lead to nobody, each in one line.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let view = self.view();
        let known = match view.groups.is_empty() {
            true => "there is no group yet".to_owned(),
            false => format!("there are {}", view.groups.join(", ")),
        };
        let mut words = Vec::new();
        for space in &view.settings.spaces {
            for grant in &space.grants {
                if let Ok(Principal::Group(name)) = Principal::parse(&grant.to)
                    && !view.groups.contains(&name)
                {
                    words.push(format!(
                        "[[space]] {}: grants: nobody is in a group `{name}` ({known}); correct the name, or make the group",
                        space.path
                    ));
                }
            }
        }
        for alias in &view.settings.aliases {
            for target in alias.to.iter().filter(|target| !mail::leads_somewhere(&view, target)) {
                words.push(format!(
                    "[[alias]] {}: to: `{target}` is no user, group, drop address or alias, so mail to it is refused; correct the name, or make it",
                    alias.address
                ));
            }
        }
        words
    }

    /// Is there a user of this name, who can be given mail?
    #[must_use]
    pub fn has_mailbox(&self, name: &str) -> bool {
        mail::leads_somewhere(&self.view(), name)
    }
}
