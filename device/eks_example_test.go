package device_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"latchkey.example/latchkey/device"
)

// Everything that one chip can show, for an operator who enrolls the whole set.
func ExampleReadEKs() {
	tpm, err := device.OpenTPM("/dev/tpmrm0")
	if err != nil {
		log.Fatal(err)
	}
	defer tpm.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	found, err := device.ReadEKs(ctx, tpm)
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range found.Keys {
		fmt.Println(key.RegistrationID, key.Algorithm, key.Hierarchy, key.SDKs)
		if c := key.Certificate; c != nil {
			fmt.Println("  the TPM's certificate is for it; its issuer is", c.Issuer)
		}
		if !key.SurvivesClear {
			fmt.Println("  gone when the TPM is cleared")
		}
	}
	for _, u := range found.Unread {
		fmt.Println("not read:", u)
	}
}
