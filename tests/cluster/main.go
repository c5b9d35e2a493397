// Command cluster is four programs in one binary, told apart by the name it is called by: etcd, kube-apiserver,
// kube-controller-manager and kubectl. They are the real ones; only etcd is configured here, as a test wants it.
// One binary, because the three Kubernetes programs share nearly all of their code: it links once and is a third of the size.
package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "etcd":
		fmt.Fprintln(os.Stderr, "etcd:", etcd(os.Args[1:]))
		os.Exit(1)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllers.NewControllerManagerCommand()))
	case "kubectl":
		cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand())
	default:
		fmt.Fprintf(os.Stderr, "%s: call it by the name of one of etcd, kube-apiserver, kube-controller-manager, kubectl\n", name)
		os.Exit(2)
	}
}

// etcd takes the flags of the real program that the tests use, in the form --flag=value, and runs until it fails.
func etcd(args []string) error {
	config := embed.NewConfig()
	config.LogLevel, config.UnsafeNoFsync = "error", true // the data is thrown away: no test outlives its etcd
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		var err error
		switch name {
		case "--data-dir":
			config.Dir = value
		case "--initial-cluster":
			config.InitialCluster = value
		case "--listen-client-urls":
			config.ListenClientUrls, err = address(value)
		case "--advertise-client-urls":
			config.AdvertiseClientUrls, err = address(value)
		case "--listen-peer-urls":
			config.ListenPeerUrls, err = address(value)
		case "--initial-advertise-peer-urls":
			config.AdvertisePeerUrls, err = address(value)
		case "--unsafe-no-fsync", "--log-level": // as set above
		default:
			err = fmt.Errorf("unknown flag %s", name)
		}
		if err != nil {
			return err
		}
	}
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	return <-server.Err()
}

func address(value string) ([]url.URL, error) {
	parsed, err := url.Parse(value)
	if err != nil {
		return nil, err
	}
	return []url.URL{*parsed}, nil
}
