package device_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"latchkey.example/latchkey/device"
)

// What an operator needs to enroll this device.
func ExampleOpen() {
	id, err := device.Open("/dev/tpmrm0")
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	fmt.Println("registration id:", id.RegistrationID())
	fmt.Println("endorsement key:", base64.StdEncoding.EncodeToString(id.EK()))
}

// From power-on to an MQTT login.
func ExampleClient_Register() {
	id, err := device.Open("/dev/tpmrm0")
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()

	ca, err := os.ReadFile("/etc/latchkey/ca.pem")
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		log.Fatal("no certificate in ca.pem")
	}
	client, err := device.NewClient(device.ClientConfig{
		Endpoint: "provisioning.example.com",
		IDScope:  "0ne00000000",
		RootCAs:  roots,
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	assigned, err := client.Register(ctx, id, device.RegisterOptions{})
	var refusal *device.APIError
	if errors.As(err, &refusal) {
		log.Fatalf("ask the operator about tracking id %s: %v", refusal.TrackingID, err)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer assigned.Key.Close()

	password, err := device.HubToken(assigned.Key, assigned.Hub, assigned.DeviceID, time.Hour)
	if err != nil {
		log.Fatal(err)
	}
	connectMQTT(assigned.Hub, assigned.DeviceID, device.HubUsername(assigned.Hub, assigned.DeviceID), password)
}

// Keeping the hub key over a restart, so that the device need not register
// again each time.
func ExampleIdentity_LoadKey() {
	id, err := device.Open("/dev/tpmrm0")
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	saved, err := os.ReadFile("/var/lib/device/hub.key") // written from Key.Marshal
	if err != nil {
		log.Fatal(err)
	}
	key, err := id.LoadKey(saved)
	if errors.Is(err, device.ErrOtherOwner) {
		log.Fatal("the TPM was cleared: register again")
	}
	if err != nil {
		log.Fatal(err)
	}
	defer key.Close()
}

// Each step reports how long it took.
func ExampleWithProgress() {
	id, err := device.Open("/dev/tpmrm0", device.WithProgress(func(e device.Event) {
		fmt.Printf("%s: %s (%v)\n", e.Step, e.Detail, e.Took)
	}))
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
}

func connectMQTT(host, clientID, username, password string) {}
