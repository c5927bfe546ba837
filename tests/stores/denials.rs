//! The deny list.

use crate::{ALL, Lab, Place, me};
use datahub_gateway::auth::UnixTime;
use datahub_gateway::auth::changes::ChangeKind;
use datahub_gateway::auth::denials::{Denial, Denials as _, DeniedTokens, LEEWAY, NewDenial};
use datahub_gateway::auth::registry::{Page, RegistryError};
use datahub_gateway::telemetry::Clock;
use std::time::Duration;

impl<P: Place> Lab<P> {
    fn after(&self, secs: u64) -> UnixTime {
        UnixTime::from_secs(self.now() + secs)
    }

    /// An entry for the token `jti`, for a minute.
    fn denial(&self, jti: &str) -> NewDenial {
        NewDenial {
            issuer: "corporate".to_owned(),
            tokens: DeniedTokens::Id(jti.into()),
            until: self.after(60),
            reason: None,
        }
    }

    async fn deny(&self, new: NewDenial) -> Denial {
        self.store.deny(&me(), new).await.unwrap()
    }

    async fn denied(&self) -> Vec<Denial> {
        let listed = self.store.denials(ALL).await.unwrap();
        let (mut loaded, revision) = self.store.load_denials().await.unwrap();
        loaded.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!(loaded, listed);
        assert_eq!(revision, self.revision().await);
        listed
    }
}

pub(super) async fn a_denied_token_is_in_the_list_until_it_is_allowed<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    assert_eq!(lab.denied().await, []);
    let tokens = DeniedTokens::Subject { subject: "alice".into(), issued_before: lab.after(1) };
    let new = NewDenial { reason: Some("stolen laptop".to_owned()), ..lab.denial("t-1") };
    let one = lab.deny(new.clone()).await;
    assert_eq!(lab.touched_since(0).await, [(ChangeKind::Token, one.id.to_string())]);
    assert_eq!((&*one.issuer, &one.tokens, one.until), ("corporate", &new.tokens, new.until));
    assert_eq!(one.reason.as_deref(), Some("stolen laptop"));
    assert_eq!(one.created_at.as_secs(), lab.now());
    lab.clock.advance(Duration::from_secs(1));
    let other = lab.deny(NewDenial { tokens: tokens.clone(), ..lab.denial("") }).await;
    assert_eq!((&other.tokens, other.reason.as_deref()), (&tokens, None));
    assert_eq!(lab.denied().await, [one.clone(), other.clone()]);

    assert_eq!(lab.store.allow(&me(), &one.id).await.unwrap(), one);
    assert_eq!(lab.touched_since(2).await, [(ChangeKind::Token, one.id.to_string())]);
    assert_eq!(lab.denied().await, [other]);
    for id in [&*one.id, "", "x", "-1", "18446744073709551616", "0' OR '1", "a\0"] {
        let allowed = lab.store.allow(&me(), id).await;
        assert!(
            matches!(&allowed, Err(RegistryError::UnknownDenial(unknown)) if unknown == id),
            "{id:?}: {allowed:?}"
        );
    }
    assert_eq!(lab.revision().await, 3);
}

pub(super) async fn entries_that_have_ended_are_gone<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.deny(lab.denial("brief")).await;
    let longer = NewDenial { until: lab.after(61), ..lab.denial("longer") };
    let longer = lab.deny(longer).await;
    // A token may live longer than it says, by the leeway.
    lab.clock.advance(LEEWAY + Duration::from_secs(59));
    assert_eq!(lab.denied().await.len(), 2);
    lab.clock.advance(Duration::from_secs(1));
    assert_eq!(lab.denied().await, [longer], "at its end it has ended");
    lab.clock.advance(Duration::from_secs(1));
    assert_eq!(lab.denied().await, []);
    assert_eq!(lab.revision().await, 2, "an end is no change");
}

pub(super) async fn the_list_comes_in_pages_in_the_order_of_time<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let mut made = Vec::new();
    for number in 0..11 {
        made.push(lab.deny(lab.denial(&format!("t-{number}"))).await);
        lab.clock.advance(Duration::from_secs(1));
    }
    assert!(made.is_sorted_by(|one, other| one.id < other.id), "ids are in that order too");
    let mut seen: Vec<Denial> = Vec::new();
    for expected in [5, 5, 1, 0] {
        let after = seen.last().map(|denial| denial.id.to_string());
        let page = Page { after: after.as_deref(), limit: 5 };
        let denials = lab.store.denials(page).await.unwrap();
        assert_eq!(denials.len(), expected);
        seen.extend(denials);
    }
    assert_eq!(seen, made);
}

pub(super) async fn what_cannot_be_denied_is_refused<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let long = "x".repeat(513);
    let subject = |subject: &str| DeniedTokens::Subject {
        subject: subject.into(),
        issued_before: UnixTime::default(),
    };
    let good = || lab.denial("t-1");
    for bad in [
        NewDenial { issuer: String::new(), ..good() },
        NewDenial { issuer: "a b".to_owned(), ..good() },
        lab.denial(""),
        lab.denial(&long),
        lab.denial("a\0"),
        NewDenial { tokens: subject(""), ..good() },
        NewDenial { tokens: subject(&long), ..good() },
        NewDenial { reason: Some(long.clone()), ..good() },
        NewDenial { reason: Some("\0".to_owned()), ..good() },
        NewDenial { until: lab.after(0), ..good() },
    ] {
        let refused = lab.store.deny(&me(), bad.clone()).await;
        assert!(matches!(refused, Err(RegistryError::Invalid { .. })), "{bad:?}: {refused:?}");
    }
    assert_eq!(lab.denied().await, []);
    assert_eq!(lab.revision().await, 0);
}

pub(super) async fn what_is_denied_comes_back_letter_by_letter<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let long = "\u{e4}".repeat(256);
    for text in ["'; DROP TABLE denials; --", "$1 %s \\ \"", "\u{1f980}\n\t\u{7f}", " ", &long] {
        let by_id = NewDenial { reason: Some(text.to_owned()), ..lab.denial(text) };
        let tokens = DeniedTokens::Subject { subject: text.into(), issued_before: lab.after(0) };
        let by_subject = NewDenial { tokens, ..lab.denial("") };
        for new in [by_id, by_subject] {
            let made = lab.deny(new.clone()).await;
            assert_eq!(
                (&made.tokens, made.reason.as_deref()),
                (&new.tokens, new.reason.as_deref())
            );
            assert!(lab.denied().await.contains(&made));
        }
    }
    let ever = NewDenial { until: UnixTime::from_secs(253_402_300_799), ..lab.denial("ever") };
    assert_eq!(lab.deny(ever.clone()).await.until, ever.until, "the last second of 9999");
}
