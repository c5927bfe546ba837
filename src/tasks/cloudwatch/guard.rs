//! What a call of CloudWatch may not do, wherever its endpoint came from.
//!
//! AWS's client takes an endpoint also from variables and from files of its own, which
//! [`config`](crate::config) never sees; so the address is looked at again when a call is about to be
//! signed. And it reads an answer whole before it understands it.
//!
//! Must stay true: credentials leave this machine encrypted or not at all; no answer takes more than
//! [`LONGEST`] of memory.

use crate::config;
use aws_sdk_cloudwatch::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_cloudwatch::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_cloudwatch::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// The longest answer in bytes: real ones have a few hundred.
const LONGEST: usize = 64 * 1024;

/// The endpoint speaks plain http and is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint `{0}` would get signed requests in plain http")]
pub(super) struct Unencrypted(String);

/// Looks at each call.
#[derive(Debug)]
pub(super) struct Guard;

impl Intercept for Guard {
    fn name(&self) -> &'static str {
        "guard"
    }

    fn read_before_signing(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let url = context.request().uri();
        match url.parse::<http::Uri>() {
            Ok(url) if config::is_private(&url) => Ok(()),
            _ => Err(Unencrypted(url.to_owned()).into()),
        }
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let body = response.take_body();
        *response.body_mut() = SdkBody::from_body_1_x(Limited::new(body, LONGEST));
        Ok(())
    }
}
