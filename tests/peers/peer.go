// The peer: Go's standard library as one uses it in an afternoon to turn a request into a Job.
package main

import (
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

type object = map[string]any

func main() {
	api, folder, namespace := os.Args[1], os.Args[2], os.Args[3]
	token, err := os.ReadFile(folder + "/token")
	check(err)
	ca, err := os.ReadFile(folder + "/ca.crt")
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots},
			MaxIdleConns:        512,
			MaxIdleConnsPerHost: 512,
		},
	}
	authorization := "Bearer " + strings.TrimSpace(string(token))
	jobs := api + "/apis/batch/v1/namespaces/" + namespace + "/jobs"
	prefix, image := setting("JOB_NAME_PREFIX", "demo-job-"), setting("JOB_IMAGE", "busybox:latest")

	call := func(method, url string, body []byte) (int, object) {
		request, _ := http.NewRequest(method, url, bytes.NewReader(body))
		request.Header.Set("Authorization", authorization)
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return 502, nil
		}
		defer response.Body.Close()
		var answer object
		text, err := io.ReadAll(response.Body)
		if err != nil || json.Unmarshal(text, &answer) != nil {
			return 502, nil
		}
		return response.StatusCode, answer
	}

	http.HandleFunc("/job", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2<<20))
		var body object
		if err != nil || json.Unmarshal(text, &body) != nil {
			fail(w, 400, "the body is not an object")
			return
		}
		id, ok := body["id"]
		if !ok {
			sum := sha1.Sum(text)
			id = hex.EncodeToString(sum[:])
		}
		name := prefix + fmt.Sprint(id)
		if len(name) > 63 {
			name = name[:63]
		}
		manifest, _ := json.Marshal(object{
			"apiVersion": "batch/v1",
			"kind":       "Job",
			"metadata":   object{"name": name, "labels": object{"app.kubernetes.io/managed-by": "script"}},
			"spec": object{
				"activeDeadlineSeconds": 300, "backoffLimit": 2, "parallelism": 1, "ttlSecondsAfterFinished": 180,
				"template": object{"spec": object{
					"restartPolicy": "Never",
					"containers":    []object{{"name": "demo-job", "image": image, "command": []string{"echo"}, "args": body["args"]}},
				}},
			},
		})
		switch code, _ := call("POST", jobs, manifest); {
		case code == 201:
			w.Header().Set("Location", "/job/"+name)
			answer(w, 201, object{"id": name})
		case code == 409:
			fail(w, 409, "there is a Job "+name)
		case code >= 400 && code < 500:
			fail(w, 422, "the API server refuses the Job")
		default:
			fail(w, 502, fmt.Sprint("the API server answers ", code))
		}
	})
	valid := regexp.MustCompile("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
	http.HandleFunc("/job/", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/job/")
		if !valid.MatchString(name) {
			fail(w, 404, "no such Job")
			return
		}
		switch code, job := call("GET", jobs+"/"+name, nil); code {
		case 200:
			answer(w, 200, object{"id": name, "status": job["status"]})
		case 404:
			fail(w, 404, "no such Job")
		default:
			fail(w, 502, fmt.Sprint("the API server answers ", code))
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func answer(w http.ResponseWriter, code int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, code int, message string) {
	answer(w, code, object{"error": object{"code": code, "message": message}})
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
