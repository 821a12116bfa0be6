package registration

// Reason is why a request was answered as it was. It is for the operator, found by tracking id; a stranger never sees it.
// The set is closed: metrics label by it and tracking ids carry its number, so the order of reasons is append-only.
type Reason uint8

// The closed set of reasons.
const (
	ReasonNone Reason = iota
	ReasonChallenged
	ReasonRegistered
	ReasonPolled
	ReasonLookup
	ReasonUnknownScope
	ReasonUnknownID
	ReasonOtherEK
	ReasonMissingTPM
	ReasonBadEK
	ReasonBadSRK
	ReasonBadRequest
	ReasonIDMismatch
	ReasonBadID
	ReasonAPIVersion
	ReasonContentType
	ReasonTooLarge
	ReasonSlowBody
	ReasonBadToken
	ReasonTokenExpired
	ReasonTokenFuture
	ReasonTokenOtherResource
	ReasonTokenSignature
	ReasonTokenSpent
	ReasonOtherKeys
	ReasonDisabled
	ReasonPinnedSRK
	ReasonUnknownOperation
	ReasonOperationClosed
	ReasonStoreDown
	ReasonHubDown
	ReasonOverload
	ReasonNotFound
	ReasonMethod
	ReasonCSR
	ReasonAdminToken
	ReasonAdminRight
	ReasonEnrollmentExists
	ReasonEnrollmentMissing
	ReasonRegistrationMissing
	ReasonEtag
	ReasonBadEnrollment
	ReasonConflict
	ReasonInternal
	ReasonHubFailed
	ReasonSuperseded
	ReasonChanged
	ReasonDeleted
	ReasonOwnerChanged
	ReasonManaged
	ReasonDeviceIDTaken
	ReasonPolicyMissing
	ReasonPolicyExists
	ReasonLastPolicy
	ReasonTooManyPolicies
	ReasonOtherMechanism
	ReasonOtherCertificate
	ReasonUnknownCertificate
	ReasonCertificateName
	ReasonCertificateTime
	ReasonGroupExists
	ReasonGroupMissing
	ReasonBadGroup
	ReasonCertificateTaken
	ReasonCAExists
	ReasonCAMissing
	ReasonCAInUse
	ReasonBadCA
	ReasonTooManyGroups
	ReasonNotHome
	ReasonScopeMissing
	ReasonHostTaken
	ReasonBadScope
	ReasonDeviceMissing
	ReasonDeviceExists
	ReasonBadDevice
	ReasonDeviceOffline
	ReasonMethodTimeout
	ReasonQueueFull
	ReasonNoModules
	ReasonHubElsewhere
	ReasonBrokerLogin
	ReasonBrokerTopic
	ReasonBrokerSecret
	ReasonBrokerUser
	ReasonBrokerSettling
	ReasonTopic
	ReasonNoHub
	ReasonAllocationFailed

	reasonCount
)
