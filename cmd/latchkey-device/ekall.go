package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/spf13/cobra"

	"latchkey.example/latchkey/device"
)

// readingLimit bounds how long keys are made for `ek --all`. Slow chips take
// half a minute for each RSA key.
const readingLimit = 15 * time.Minute

// ekSet is every EK of a chip.
type ekSet struct {
	RegistrationID  string        `json:"registrationId,omitempty"` // of the first of EndorsementKeys if this agent registers with it
	EndorsementKeys []endorsement `json:"endorsementKeys"`
	OtherKeys       []endorsement `json:"otherKeys,omitempty"` // no service of this protocol can use them
	Certificates    []certificate `json:"certificates,omitempty"`
	Unread          []unread      `json:"unread,omitempty"`
	Manufacturer    string        `json:"manufacturer"`
	Model           string        `json:"model,omitempty"`
	Firmware        string        `json:"firmware"`
	Warnings        []string      `json:"warnings,omitempty"`
}

type endorsement struct {
	EndorsementKey []byte           `json:"endorsementKey"` // TPM2B_PUBLIC
	RegistrationID string           `json:"registrationId"` // its default one
	Algorithm      device.Algorithm `json:"algorithm"`
	Hierarchy      string           `json:"hierarchy"`
	SurvivesClear  bool             `json:"survivesClear"`
	Template       string           `json:"template,omitempty"`
	SDKs           []string         `json:"sdks,omitempty"`
	Handles        []string         `json:"handles,omitempty"`
	Certificate    []byte           `json:"certificate,omitempty"` // DER
	Registers      bool             `json:"registers,omitempty"`   // this agent shows it
	Unfit          string           `json:"unfit,omitempty"`
}

// certificate is one in NV, for people.
type certificate struct {
	Index        string   `json:"index"`
	Matches      bool     `json:"matches"` // it is for one of the keys
	Issuer       string   `json:"issuer"`
	Subject      string   `json:"subject,omitempty"`
	Serial       string   `json:"serial"`
	Manufacturer string   `json:"manufacturer,omitempty"`
	Model        string   `json:"model,omitempty"`
	Version      string   `json:"version,omitempty"`
	NotBefore    string   `json:"notBefore,omitempty"`
	NotAfter     string   `json:"notAfter,omitempty"`
	Issuers      []string `json:"issuers,omitempty"` // those in NV, upwards
	ChainClosed  bool     `json:"chainClosed"`
	IssuerURLs   []string `json:"issuerUrls,omitempty"`
	Irregular    string   `json:"irregular,omitempty"`
	DER          []byte   `json:"certificate"`

	owner string // registration id of the key that it is for
}

// unread is what could not be read, why, and what to do.
type unread struct {
	What   string `json:"what"`
	Why    string `json:"why"`
	Advice string `json:"advice,omitempty"`
}

func (u unread) String() string {
	if u.Advice == "" {
		return u.What + ": " + u.Why
	}
	return fmt.Sprintf("%s: %s (%s)", u.What, u.Advice, u.Why)
}

// runAll is about every EK of the chip. It makes no Identity: EKs can be read
// where an SRK cannot.
func (f *ekFlags) runAll(cmd *cobra.Command, tpm *tpmFlags) error {
	set, own, err := f.readAll(cmd.Context(), tpm, tpm.progress(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case f.certificateFile != "":
		return writeCertificate(out, f.certificateFile, own)
	case f.eks != "":
		return set.write(out, cmd.ErrOrStderr(), f.eks)
	case f.asJSON:
		return printJSON(out, set)
	}
	return set.print(out)
}

func (f *ekFlags) readAll(ctx context.Context, tpm *tpmFlags, progress device.Progress) (set *ekSet, own *device.EKCertificate, err error) {
	var as []device.Option // how this agent would open its Identity
	if tpm.transient {
		as = append(as, device.WithTransientKeys())
	}
	if tpm.algorithm != "" {
		algorithm, err := device.ParseAlgorithm(tpm.algorithm)
		if err != nil {
			return nil, nil, usageError{err}
		}
		as = append(as, device.WithAlgorithm(algorithm))
	}
	auth, err := tpm.auth.read()
	if err != nil {
		return nil, nil, err
	}
	defer auth.Wipe()
	chip, err := device.OpenTPM(tpm.spec)
	if err != nil {
		return nil, nil, tpmProblem{tpm.spec, err}
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	options := []device.EKOption{device.WithEKAuth(auth), device.WithEKProgress(progress)}
	if f.deep {
		options = append(options, device.WithSlowEKs())
	}
	ctx, cancel := context.WithTimeout(ctx, readingLimit)
	defer cancel()
	found, err := device.ReadEKs(ctx, chip, options...)
	if err != nil {
		return nil, nil, err
	}
	info, err := device.ReadInfo(chip)
	if err != nil {
		return nil, nil, err
	}
	registering := found.Registering(as...)
	if registering != nil {
		own = registering.Certificate
	}
	return describeEKs(found, info, registering), own, nil
}

// describeEKs puts the key that the device registers with first.
func describeEKs(found *device.EKs, info *device.Info, registering *device.EK) *ekSet {
	set := &ekSet{EndorsementKeys: []endorsement{}, Manufacturer: info.Manufacturer, Model: info.Model, Firmware: info.Firmware,
		Unread: describeUnread(found.Unread)}
	owners := make(map[*device.EKCertificate]string)
	for i := range found.Keys {
		key := &found.Keys[i]
		e := describeEK(key)
		e.Registers = key == registering
		if key.Certificate != nil {
			owners[key.Certificate] = key.RegistrationID
		}
		switch {
		case key.Unfit != nil:
			set.OtherKeys = append(set.OtherKeys, e)
		case e.Registers:
			set.RegistrationID = key.RegistrationID
			set.EndorsementKeys = append([]endorsement{e}, set.EndorsementKeys...)
		default:
			set.EndorsementKeys = append(set.EndorsementKeys, e)
		}
		if key.At(uint32(device.HandleEK)) {
			set.warnOfStandard(key)
		}
	}
	for _, c := range found.Certificates {
		d := describeCertificate(c)
		d.owner = owners[c]
		set.Certificates = append(set.Certificates, *d)
	}
	if registering == nil {
		set.Warnings = append(set.Warnings, "the EK that this agent registers with is not among them")
	}
	if info.OwnSeed && !slices.ContainsFunc(set.Certificates, func(c certificate) bool { return c.Matches }) && len(set.Certificates) > 0 {
		set.Warnings = append(set.Warnings, "the TPM made its endorsement seed itself (TPM2_ChangeEPS), so a certificate of the maker is for none of its keys")
	}
	return set
}

// warnOfStandard tells what is wrong with the key that every SDK shows.
func (set *ekSet) warnOfStandard(key *device.EK) {
	at := indexText(uint32(device.HandleEK))
	switch {
	case key.Unfit != nil:
		set.Warnings = append(set.Warnings, fmt.Sprintf("the key at %s, which SDKs show as the EK, is none that a service can use: %v; remove it with tpm2_evictcontrol -c %s", at, key.Unfit, at))
	case hierarchyWarning(key.Hierarchy) != "":
		set.Warnings = append(set.Warnings, fmt.Sprintf("at %s, where SDKs look: %s", at, hierarchyWarning(key.Hierarchy)))
	}
}

func describeEK(key *device.EK) endorsement {
	e := endorsement{EndorsementKey: key.Public, RegistrationID: key.RegistrationID, Algorithm: key.Algorithm, Hierarchy: key.Hierarchy,
		SurvivesClear: key.SurvivesClear, Template: strings.Join(key.Templates, "; "), SDKs: key.SDKs}
	for _, handle := range key.Handles {
		e.Handles = append(e.Handles, indexText(handle))
	}
	if key.Certificate != nil {
		e.Certificate = key.Certificate.Raw
	}
	if key.Unfit != nil {
		e.Unfit = key.Unfit.Error()
	}
	return e
}

func describeCertificate(c *device.EKCertificate) *certificate {
	d := &certificate{Index: indexText(c.Index), Matches: c.Matches, Issuer: c.Issuer, Subject: c.Subject, Serial: c.Serial,
		Manufacturer: c.ManufacturerName(), Model: c.Model, Version: c.Version, NotBefore: dateText(c.NotBefore), NotAfter: dateText(c.NotAfter),
		ChainClosed: c.Closed, IssuerURLs: c.IssuerURLs, DER: c.Raw}
	for _, issuer := range c.Issuers {
		d.Issuers = append(d.Issuers, issuer.Subject)
	}
	if c.Irregular != nil {
		d.Irregular = c.Irregular.Error()
	}
	return d
}

func describeUnread(all []device.Unread) (list []unread) {
	for _, u := range all {
		list = append(list, unread{What: u.What, Why: oneLine(u.Err), Advice: unreadAdvice(u)})
	}
	return list
}

func unreadAdvice(u device.Unread) string {
	switch {
	case errors.Is(u.Err, device.ErrSkipped):
		return "add --deep to have it made"
	case errors.Is(u.Err, context.Canceled), errors.Is(u.Err, context.DeadlineExceeded):
		return "the reading was stopped before it"
	case errors.Is(u.Err, tpm2.TPMRCHierarchy):
		return "the firmware has switched its hierarchy off: look into the firmware's settings"
	case u.Hierarchy != "":
		return fmt.Sprintf("the %s hierarchy has a password, and it was not given or is another: give it with --%s-auth-file", u.Hierarchy, u.Hierarchy)
	}
	return tpmAdvice(u.Err)
}

// write writes the set for the service's operator, and says on stderr what is
// missing in it.
func (set *ekSet) write(stdout, stderr io.Writer, path string) error {
	if len(set.EndorsementKeys) == 0 {
		return fmt.Errorf("no EK could be read, nothing is written: %s", firstOf(set.Unread))
	}
	var text bytes.Buffer
	if err := printJSON(&text, set); err != nil {
		return err
	}
	for _, u := range set.Unread {
		fmt.Fprintf(stderr, "not read: %s\n", u)
	}
	for _, warning := range set.Warnings {
		fmt.Fprintf(stderr, "warning: %s\n", warning)
	}
	return writeOutput(stdout, path, text.Bytes())
}

func firstOf(all []unread) string {
	if len(all) == 0 {
		return "the TPM has none"
	}
	return all[0].String()
}

func (set *ekSet) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "REGISTRATION ID\tALGORITHM\tHIERARCHY\tAFTER A CLEAR\tKEPT AT\tCERTIFICATE\tTEMPLATE\tSHOWN BY")
	for _, e := range append(set.EndorsementKeys, set.OtherKeys...) {
		fmt.Fprintln(table, strings.Join(e.columns(), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(set.Certificates) > 0 {
		fmt.Fprintln(w, "\nCertificates in the TPM, shown and not verified: no maker's root is trusted here.")
	}
	for _, c := range set.Certificates {
		c.print(w)
	}
	if len(set.Unread)+len(set.Warnings) > 0 {
		fmt.Fprintln(w)
	}
	for _, u := range set.Unread {
		fmt.Fprintf(w, "not read: %s\n", u)
	}
	for _, warning := range set.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	_, err := fmt.Fprintf(w, "\n%s\nEnroll the one that the device's SDK shows; latchkey-device ek --eks FILE keeps all of them\n", set.legend())
	return err
}

func (set *ekSet) legend() string {
	text := "* this agent registers with it."
	if set.RegistrationID == "" {
		text = "This agent registers with none of these."
	}
	at := indexText(uint32(device.HandleEK))
	if slices.ContainsFunc(append(set.EndorsementKeys, set.OtherKeys...), func(e endorsement) bool { return slices.Contains(e.Handles, at) }) {
		text += " SDKs show what is kept at " + at + " and the others only where nothing is."
	}
	return text
}

func (e *endorsement) columns() []string {
	id, after, kept, certified, shown := e.RegistrationID, "gone", "-", "-", "-"
	if e.Registers {
		id += " *"
	}
	if e.SurvivesClear {
		after = "the same"
	}
	if len(e.Handles) > 0 {
		kept = strings.Join(e.Handles, " ")
	}
	if e.Certificate != nil {
		certified = "yes"
	}
	if len(e.SDKs) > 0 {
		shown = strings.Join(e.SDKs, ", ")
	}
	if e.Unfit != "" {
		shown += " (not usable: " + e.Unfit + ")"
	}
	template := e.Template
	if template == "" {
		template = "unknown"
		if e.SurvivesClear { // it has to be made anew, which takes the template
			after = "the same, if its maker makes it again"
		}
	}
	return []string{id, string(e.Algorithm), e.Hierarchy, after, kept, certified, template, shown}
}

func (c *certificate) print(w io.Writer) {
	key := "for none of these keys"
	if c.Matches {
		key = "for " + c.owner
	}
	if c.Matches && c.owner == "" {
		key = "for a key that has another certificate, too"
	}
	fmt.Fprintf(w, "%s  %s\n", c.Index, key)
	maker := strings.TrimSpace(strings.Join([]string{c.Manufacturer, c.Model, c.Version}, " "))
	for _, line := range []struct{ name, text string }{
		{"issuer", c.Issuer}, {"subject", c.Subject}, {"TPM", maker}, {"valid", c.NotBefore + " to " + c.NotAfter},
		{"chain", c.chainText()}, {"issuer's certificate", strings.Join(c.IssuerURLs, " ")}, {"irregular", c.Irregular},
	} {
		if line.text != "" {
			fmt.Fprintf(w, "  %-20s  %s\n", line.name, line.text)
		}
	}
}

func (c *certificate) chainText() string {
	switch {
	case len(c.Issuers) == 0:
		return "no issuer in the TPM"
	case c.ChainClosed:
		return "in the TPM up to its root: " + strings.Join(c.Issuers, " < ")
	}
	return "in the TPM, without its root: " + strings.Join(c.Issuers, " < ")
}

func indexText(index uint32) string { return fmt.Sprintf("0x%08x", index) }

func dateText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

func orNobody(name string) string {
	if name == "" {
		return "an issuer without a name"
	}
	return name
}

// oneLine is an error as one line: joined errors come as lines.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
