package registration

import "strings"

// Sealer seals secrets at rest; the context binds a sealed value to its place, so that rows cannot be swapped.
type Sealer interface {
	Seal(context string, plaintext []byte) ([]byte, error)
	Open(context string, sealed []byte) ([]byte, error)
}

// Contexts of sealed values. Parts are joined by a byte that no id can hold.
func sealContext(parts ...string) string { return strings.Join(parts, "\x00") }

// ContextScopeRoot is the context of Scope.SealedRoot.
func ContextScopeRoot(scope string) string { return sealContext("scope-root", scope) }

// ContextScopeCertificate is the context of Scope.SealedCertificateKey.
func ContextScopeCertificate(scope string) string { return sealContext("scope-certificate", scope) }

// ContextPolicyKey is the context of an access policy's keys; slot is "primary" or "secondary".
func ContextPolicyKey(scope, policy, slot string) string {
	return sealContext("policy-key", scope, policy, slot)
}

// ContextEnrollmentKey is the context of an enrollment's symmetric keys; slot is "primary" or "secondary".
func ContextEnrollmentKey(scope, foldedID, slot string) string {
	return sealContext("enrollment-key", scope, foldedID, slot)
}

// ContextGroupKey is the context of a group's symmetric keys; slot as above.
func ContextGroupKey(scope, foldedID, slot string) string {
	return sealContext("group-key", scope, foldedID, slot)
}

// ContextHubKey is the context of the hub key in a registration and in its operations.
func ContextHubKey(scope, foldedID string) string { return sealContext("hub-key", scope, foldedID) }

// ContextChallengeKey is the context of an operation's redeemed challenge key.
func ContextChallengeKey(scope, operationID string) string {
	return sealContext("challenge-key", scope, operationID)
}

// ContextIdentityKey is the context of a device's key at the embedded hub.
func ContextIdentityKey(scope, hub, deviceID string) string {
	return sealContext("identity-key", scope, hub, deviceID)
}

// ContextHubSecret is the context of LinkedHub.SealedSecret.
func ContextHubSecret(scope, hub string) string { return sealContext("linked-hub-secret", scope, hub) }

// ContextWebhookKey is the context of AllocationSettings.SealedWebhookKey.
func ContextWebhookKey(scope string) string { return sealContext("webhook-key", scope) }

// Context is the context under which the value was sealed.
func (v SealedValue) Context() string {
	switch v.Kind {
	case SealedScopeRoot:
		return ContextScopeRoot(v.Scope)
	case SealedScopeCertificate:
		return ContextScopeCertificate(v.Scope)
	case SealedPolicyPrimary:
		return ContextPolicyKey(v.Scope, v.Key, "primary")
	case SealedPolicySecondary:
		return ContextPolicyKey(v.Scope, v.Key, "secondary")
	case SealedEnrollmentFirst:
		return ContextEnrollmentKey(v.Scope, v.Key, "primary")
	case SealedEnrollmentSecond:
		return ContextEnrollmentKey(v.Scope, v.Key, "secondary")
	case SealedGroupFirst:
		return ContextGroupKey(v.Scope, v.Key, "primary")
	case SealedGroupSecond:
		return ContextGroupKey(v.Scope, v.Key, "secondary")
	case SealedRegistrationKey:
		return ContextHubKey(v.Scope, v.Key)
	case SealedOperationHubKey:
		// The operation's key names the registration after the operation: "operationID\x00registrationID".
		_, id, _ := strings.Cut(v.Key, "\x00")
		return ContextHubKey(v.Scope, id)
	case SealedOperationKey:
		return ContextChallengeKey(v.Scope, v.Key)
	case SealedHubIdentity:
		hub, device, _ := strings.Cut(v.Key, "\x00")
		return ContextIdentityKey(v.Scope, hub, device)
	case SealedHubSecret:
		return ContextHubSecret(v.Scope, v.Key)
	case SealedWebhookKey:
		return ContextWebhookKey(v.Scope)
	}
	return ""
}
